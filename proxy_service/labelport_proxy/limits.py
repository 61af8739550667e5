"""How much one user may ask for: requests by the second, and streams at once."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from labelport_proxy.refusing import too_many

_BURST_SECONDS = 4.0  # so much of what is allowed may come at once
_MOST_USERS = 50_000


@dataclass
class _Bucket:
    tokens: float
    at: float


class Limits:
    """The limits of this process. Zero is no limit."""

    def __init__(
        self,
        requests_per_second: float,
        streams: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rate = requests_per_second
        self._streams = streams
        self._clock = clock
        self._buckets: OrderedDict[int, _Bucket] = OrderedDict()
        self._open: Counter[int] = Counter()

    def count(self, user_id: int) -> None:
        """Count a request. Raises `Refusal` when it is one too many."""
        if not self._rate:
            return
        now, most = self._clock(), self._rate * _BURST_SECONDS
        bucket = self._buckets.get(user_id)
        if bucket is None:
            bucket = self._buckets[user_id] = _Bucket(most, now)
            if len(self._buckets) > _MOST_USERS:
                self._buckets.popitem(last=False)
        bucket.tokens = min(most, bucket.tokens + (now - bucket.at) * self._rate)
        bucket.at = now
        if bucket.tokens < 1:
            raise too_many("Too many requests.", (1 - bucket.tokens) / self._rate)
        bucket.tokens -= 1
        self._buckets.move_to_end(user_id)

    def begin_stream(self, user_id: int) -> None:
        """Count one of the user's streams. Raises `Refusal` when it is one too many."""
        if self._streams and self._open[user_id] >= self._streams:
            raise too_many("Too many streams are open.", 1)
        self._open[user_id] += 1

    def end_stream(self, user_id: int) -> None:
        """One of those that were counted has ended."""
        self._open[user_id] -= 1
        if not self._open[user_id]:
            del self._open[user_id]
