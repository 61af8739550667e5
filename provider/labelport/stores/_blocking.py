"""What may block for ever, in a thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


def in_own_thread(function: Callable[[], T]) -> asyncio.Future[T]:
    """Begin *function*; the future has what comes of it.

    `asyncio.to_thread` would take a thread that others need, and have the end of the loop and of
    the process wait for it.
    """
    context = copy_context()
    done: Future[T] = Future()
    done.set_running_or_notify_cancel()

    def run() -> None:
        try:
            done.set_result(context.run(function))
        except BaseException as error:
            done.set_exception(error)

    Thread(target=run, daemon=True).start()
    return asyncio.wrap_future(done)
