"""How far a sync has come, told at most once a second."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from labelport.model import Counters


@dataclass(frozen=True)
class Progress:
    """How far a shard, or a whole sync in one process, has come."""

    counters: Counters
    seconds: float  #: since it began here
    rate: float  #: made and passed over, per second, since it began here


OnProgress = Callable[[Progress], None]


class Meter:
    """Adds up counters and tells them at most once a second."""

    def __init__(self, on_progress: OnProgress | None) -> None:
        self._tell = on_progress
        self._before = self._counters = Counters()
        self._begun = self._told = time.monotonic()

    def start(self, counters: Counters) -> None:
        """Begin with what a shard had counted before this process took it."""
        self._before += counters
        self._counters += counters

    def add(self, added: Counters) -> None:
        self._counters += added
        if time.monotonic() - self._told >= 1:
            self.report()

    def report(self) -> None:
        """Tell it now."""
        self._told = time.monotonic()
        if self._tell is None:
            return
        seconds = self._told - self._begun
        done = _passed(self._counters) - _passed(self._before)
        self._tell(Progress(self._counters, seconds, done / seconds if seconds else 0.0))


def _passed(counters: Counters) -> int:
    return counters.created + counters.updated + counters.existed
