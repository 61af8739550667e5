"""When to try again, and how long to wait first."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from labelport.errors import StoreUnavailable


class Busy(Exception):
    """One attempt failed in a way that may pass. Never leaves the stores.

    :param reason: without URLs, for it ends up in the error when no attempt is left.
    :param kind: that error.
    :param after_seconds: how long the store asked to be left alone.
    """

    def __init__(
        self,
        reason: str,
        kind: type[StoreUnavailable] = StoreUnavailable,
        after_seconds: float | None = None,
    ) -> None:
        super().__init__(reason)
        self.kind = kind
        self.after_seconds = after_seconds

    def lasting(self, failures: int, uri: str) -> StoreUnavailable:
        """The error when this was the last of *failures* failed attempts."""
        times = f", {failures} times" if failures > 1 else ""
        return self.kind(f"{self}{times}", uri=uri, after_seconds=self.after_seconds)


@dataclass(frozen=True)
class RetryPolicy:
    """Exponential backoff with jitter; a ``Retry-After`` of the store takes its place."""

    attempts: int = 8  #: in all, the first included
    first_seconds: float = 0.2
    max_seconds: float = 10.0
    max_retry_after_seconds: float = 60.0  #: a store that asks for more gets this
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def wait(self, failures: int, after_seconds: float | None = None) -> None:
        """Wait before the attempt that follows *failures* failed ones in a row."""
        if after_seconds is not None:
            await self.sleep(min(after_seconds, self.max_retry_after_seconds))
            return
        ceiling = min(self.max_seconds, self.first_seconds * 2.0 ** (failures - 1))
        # Half of the wait is random: clients that failed together must not come back together.
        await self.sleep(ceiling * random.uniform(0.5, 1.0))  # noqa: S311


def retry_after_seconds(value: str | None) -> float | None:
    """What a ``Retry-After`` header asks for, in seconds or as an HTTP date; None if unreadable."""
    if value is None:
        return None
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
