"""How much one user may ask for: requests by the second, and streams at once."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from labelport_proxy.refusing import too_many

_BURST_SECONDS = 4.0  # so much of what is allowed may come at once
_MOST_KNOWN = 50_000

K = TypeVar("K", bound=Hashable)


@dataclass
class _Bucket:
    tokens: float
    at: float


class Rate(Generic[K]):
    """So many of something a second, for each who does it. Zero is no limit."""

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = per_second
        self._clock = clock
        self._buckets: OrderedDict[K, _Bucket] = OrderedDict()

    def count(self, who: K) -> None:
        """Count one. Raises `Refusal` when it is one too many."""
        if not self._rate:
            return
        now, most = self._clock(), max(1.0, self._rate * _BURST_SECONDS)
        bucket = self._buckets.get(who)
        if bucket is None:
            bucket = self._buckets[who] = _Bucket(most, now)
            if len(self._buckets) > _MOST_KNOWN:
                self._buckets.popitem(last=False)
        bucket.tokens = min(most, bucket.tokens + (now - bucket.at) * self._rate)
        bucket.at = now
        if bucket.tokens < 1:
            raise too_many("Too many requests.", (1 - bucket.tokens) / self._rate)
        bucket.tokens -= 1
        self._buckets.move_to_end(who)

    def require(self, who: K) -> None:
        """Raise `Refusal` if one would be one too many; count none."""
        bucket = self._buckets.get(who)
        if bucket is None:
            return
        left = bucket.tokens + (self._clock() - bucket.at) * self._rate
        if left < 1:
            raise too_many("Too many requests.", (1 - left) / self._rate)


class Limits(Rate[int]):
    """The limits of a user, by id, in this process: of requests, and of streams at once."""

    def __init__(
        self,
        requests_per_second: float,
        streams: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(requests_per_second, clock)
        self._streams = streams
        self._open: dict[int, int] = {}

    def begin_stream(self, user_id: int) -> None:
        """Count one of the user's streams. Raises `Refusal` when it is one too many."""
        others = self._open.get(user_id, 0)
        if self._streams and others >= self._streams:
            raise too_many("Too many streams are open.", 1)
        self._open[user_id] = others + 1

    def end_stream(self, user_id: int) -> None:
        """One of those that were counted has ended."""
        others = self._open.pop(user_id) - 1
        if others:
            self._open[user_id] = others
