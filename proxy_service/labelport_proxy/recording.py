"""What became of every request: its line in the log, and what it adds to the numbers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from datetime import UTC, datetime

import msgspec
from msgspec import UNSET, UnsetType

from labelport_proxy import logs, metrics
from labelport_proxy.exchange import Exchange

log = logging.getLogger("labelport_proxy.access")

_MOMENT_SECONDS = 0.1


class Line(msgspec.Struct, kw_only=True, gc=False):
    """A request in the log."""

    time: datetime
    level: str = "info"
    logger: str = log.name
    message: str = "request"
    request_id: str
    method: str
    path: str  #: never the query: it may be a signed link
    status: int | None
    outcome: str
    user: int | None
    client: str | None
    bytes: int
    first_byte_seconds: float | None
    seconds: float
    error: str | UnsetType


class Recorder:
    """Records the requests of a moment at once: one by one, that would cost more than they do."""

    def __init__(self) -> None:
        self._lines: list[Line] = []
        self._due: asyncio.TimerHandle | None = None
        self._patient = True

    def add(self, exchange: Exchange) -> None:
        """Record a request that is over."""
        scope, client = exchange.scope, exchange.scope.get("client")
        line = Line(
            time=datetime.now(UTC),
            request_id=exchange.request_id,
            method=scope["method"],
            path=scope["path"],
            status=exchange.status,
            outcome=exchange.outcome or ("none" if exchange.status is None else "ok"),
            user=exchange.user,
            client=client[0] if client else None,
            bytes=exchange.bytes,
            first_byte_seconds=exchange.first_byte and _brief(exchange.first_byte),
            seconds=_brief(time.perf_counter() - exchange.begun),
            error=exchange.error or UNSET,
        )
        self._lines.append(line)
        if not self._patient:
            self.flush()
        elif self._due is None:
            self._due = asyncio.get_running_loop().call_later(_MOMENT_SECONDS, self.flush)

    def flush(self) -> None:
        """Record what waits."""
        if self._due is not None:
            self._due.cancel()
            self._due = None
        lines, self._lines = self._lines, []
        if not lines:
            return
        for outcome, count in Counter([line.outcome for line in lines]).items():
            metrics.requests.labels(outcome).inc(count)
        metrics.sent_bytes.inc(sum([line.bytes for line in lines]))
        for line in lines:
            if line.first_byte_seconds is not None:
                metrics.first_byte_seconds.observe(line.first_byte_seconds)
        if log.isEnabledFor(logging.INFO):
            logs.write(log, lines)

    def hasten(self) -> None:
        """Record each request at once from now on: the process ends, perhaps by a signal."""
        self._patient = False
        self.flush()


def _brief(seconds: float) -> float:
    """In whole microseconds; `round` takes ten times as long."""
    return int(seconds * 1e6) / 1e6
