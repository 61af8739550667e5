"""Threads of the catalog's own, so that nothing else waits where it makes wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
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
        self._executor = ThreadPoolExecutor(threads, "catalog")
        self._seconds = seconds

    async def call(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        """What *function* returns, or raises.

        Raises `sqlalchemy.exc.TimeoutError` when that takes too long. What had begun by then goes
        on in its thread: a write may yet be done.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._seconds):
                return await loop.run_in_executor(self._executor, function, *args)
        except TimeoutError:
            raise exc.TimeoutError(f"no answer within {self._seconds:g} s") from None

    def close(self) -> None:
        """Take no more calls; what has begun ends by itself."""
        self._executor.shutdown(wait=False, cancel_futures=True)
