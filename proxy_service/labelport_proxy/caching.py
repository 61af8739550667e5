"""Values that may be used again for a while, the oldest of them forgotten first."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Kept(Generic[K, V]):
    """At most *size* values, each until its own time. Threads may share it."""

    def __init__(self, size: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._size = size
        self._clock = clock
        self._values: OrderedDict[K, tuple[V, float]] = OrderedDict()

    def get(self, key: K) -> V | None:
        """The value of *key*, while it is good."""
        found = self._values.get(key)
        if found is None:
            return None
        value, until = found
        if self._clock() >= until:
            self._values.pop(key, None)
            return None
        return value

    def put(self, key: K, value: V, seconds: float) -> None:
        """Keep *value* for *seconds*; not at all if there are none."""
        if seconds <= 0:
            return
        self._values.pop(key, None)  # or it would stay as old as it is
        self._values[key] = (value, self._clock() + seconds)
        if len(self._values) > self._size:
            self._values.popitem(last=False)

    def drop(self, key: K) -> None:
        """Forget the value of *key*."""
        self._values.pop(key, None)
