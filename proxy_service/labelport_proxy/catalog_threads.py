"""Threads of the catalog's own, so that nothing else waits where it makes wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TypeVar, TypeVarTuple

from sqlalchemy import exc

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class CatalogThreads:
    """Calls blocking functions that ask the catalog.

    Who reads and who writes get threads apart: SQLite's writers wait for each other for long.
    """

    def __init__(self, threads: int, *, seconds: float) -> None:
        """:param seconds: how long a call may take, with its wait for a thread"""
        self._threads = threads
        self._seconds = seconds
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        # An executor's threads would keep the process from its end until the database answers.
        for _ in range(threads):
            Thread(target=_work, args=(self._calls,), name="catalog", daemon=True).start()

    async def call(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        """What *function* returns, or raises.

        Raises `sqlalchemy.exc.TimeoutError` when that takes too long. What had begun by then goes
        on in its thread: a write may yet be done.
        """
        done: Future[T] = Future()
        self._calls.put(partial(_answer, done, partial(function, *args)))
        try:
            async with asyncio.timeout(self._seconds):
                return await asyncio.wrap_future(done)
        except TimeoutError:
            raise exc.TimeoutError(f"no answer within {self._seconds:g} s") from None

    def close(self) -> None:
        """Take no more calls; what has begun ends by itself, or with the process."""
        with suppress(Empty):
            while True:
                self._calls.get_nowait()
        for _ in range(self._threads):
            self._calls.put(None)


def _work(calls: SimpleQueue[Callable[[], None] | None]) -> None:
    while (call := calls.get()) is not None:
        call()
        del call  # or what came of it would be kept until the next


def _answer(done: Future[T], function: Callable[[], T]) -> None:
    if not done.set_running_or_notify_cancel():
        return  # nobody waits for it any more
    try:
        done.set_result(function())
    except BaseException as error:
        done.set_exception(error)
        del done  # or it and the error would hold each other
