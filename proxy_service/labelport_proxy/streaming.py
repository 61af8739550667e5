"""Bodies on their way to a client: each byte that was promised, or a connection cut off.

A ranged answer has a time limit: browsers come back for the rest, and whoever does not must not
hold a connection for ever. A whole answer may take long, and may neither stand still nor crawl.
What cannot be finished is never ended as if it were whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum

from starlette.types import Receive

from labelport.errors import StoreError, StoreUnavailable
from labelport_proxy import metrics
from labelport_proxy.exchange import Exchange
from labelport_proxy.observing import complain
from labelport_proxy.server import CONNECTION

_TICK_SECONDS = 0.5


class Cut(StrEnum):
    """Why an answer was cut off."""

    TIME_LIMIT = "time_limit"  #: a ranged answer took too long
    STALLED = "stalled"  #: no byte went for too long: the client does not read, or the store lags
    TOO_SLOW = "too_slow"  #: a whole answer crawled
    STORE_FAILED = "store_failed"
    CLIENT_LEFT = "client_left"
    SHUTDOWN = "shutdown"  #: the server has no more time


class Flow:
    """One body on its way."""

    __slots__ = ("begun", "cut", "length", "moved", "sent", "task", "timed")

    def __init__(self, sent: int, length: int, *, timed: bool) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 # servers run every request in one
        self.task = task
        self.timed = timed  #: whether the time limit is for it
        self.begun = self.moved = asyncio.get_running_loop().time()  #: the latest chunk went
        self.sent = sent  #: bytes
        self.length = length  #: bytes
        self.cut: Cut | None = None


class Watch:
    """Looks after all flows of this process: one timer for all, not one for each chunk."""

    def __init__(self, *, timeout: float, min_rate: int) -> None:
        self._timeout = timeout
        self._min_rate = min_rate
        self._flows: set[Flow] = set()

    async def run(self) -> None:
        """Look now and then, for as long as the process serves."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            for flow in list(self._flows):
                reason = self._overdue(flow, loop.time())
                if reason and flow.cut is None:
                    flow.cut = reason
                    flow.task.cancel()

    def _overdue(self, flow: Flow, now: float) -> Cut | None:
        taken = now - flow.begun
        if flow.timed:
            return Cut.TIME_LIMIT if taken > self._timeout else None
        if now - flow.moved > self._timeout:
            return Cut.STALLED
        # Only once the start no longer counts: what the kernel took at once, the client has not.
        crawls = taken > 3 * self._timeout and flow.sent < taken * self._min_rate
        return Cut.TOO_SLOW if crawls else None

    @contextmanager
    def over(self, flow: Flow) -> Iterator[Flow]:
        """Watch over *flow*, which the running task sends, until the block ends."""
        self._flows.add(flow)
        metrics.open_streams.inc()
        try:
            yield flow
        finally:
            self._flows.discard(flow)
            metrics.open_streams.dec()


async def send_rest(
    exchange: Exchange, receive: Receive, chunks: AsyncIterator[bytes], flow: Flow
) -> Cut | None:
    """Send the *chunks* that are left; why the connection was cut off instead, if it was."""
    extension = exchange.scope.get("extensions", {}).get(CONNECTION, {})
    transport: asyncio.Transport | None = extension.get("transport")
    left = transport.is_closing if transport else _never
    try:
        await _pump(exchange, chunks, flow, left)
    except asyncio.CancelledError:
        flow.cut = flow.cut or Cut.SHUTDOWN
        flow.task.uncancel()
    except StoreError as error:
        flow.cut = Cut.STORE_FAILED
        complain(exchange, error, f"cut off after {flow.sent} of {flow.length} bytes: ")
    if flow.cut is not None:
        metrics.truncations.labels(flow.cut).inc()
        if transport is None:
            raise StoreUnavailable(f"cut off: {flow.cut}")  # so that the server closes it
        transport.abort()
        # The server takes note of that in its own time, and would miss the rest of the answer.
        while (await receive())["type"] != "http.disconnect":
            pass
    return flow.cut


async def _pump(
    exchange: Exchange, chunks: AsyncIterator[bytes], flow: Flow, left: Callable[[], bool]
) -> None:
    clock = asyncio.get_running_loop().time
    async for chunk in chunks:
        flow.sent += len(chunk)
        await exchange.go_on(chunk, flow.length - flow.sent)
        if flow.sent == flow.length:
            return
        flow.moved = clock()
        # A server that has lost its client takes what is sent without a word.
        if left():
            flow.cut = Cut.CLIENT_LEFT
            return
    raise ended_early()


def ended_early() -> StoreUnavailable:
    """The store's answer was shorter than it had said."""
    return StoreUnavailable("the store's answer ended early")


def _never() -> bool:
    return False
