"""From Airflow's blocking tasks and hooks into the engine's coroutines."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Coroutine, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

Result = TypeVar("Result")
_END: Any = object()


class Bridge:
    """An event loop in a thread of its own, for code that blocks.

    The loop keeps turning while the caller is busy with what it got, so that no timeout of the
    store counts the caller's time. Use it in ``with``; all that was begun must be closed before.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="labelport-bridge", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.run(self._loop.shutdown_asyncgens())
        self.run(self._loop.shutdown_default_executor())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """The result of *work*; whatever interrupts the wait cancels the work."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        finally:
            future.cancel()

    def iterate(self, source: AsyncGenerator[Result, None]) -> Iterator[Result]:
        """The items of *source*, one step at a time; closing this closes *source*."""
        try:
            while (item := self.run(_next(source))) is not _END:
                yield item
        finally:
            self.run(source.aclose())


async def _next(source: AsyncGenerator[Result, None]) -> Result:
    """The next item, or `_END`: StopAsyncIteration cannot leave a coroutine."""
    return await anext(source, _END)
