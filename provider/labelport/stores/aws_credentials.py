"""AWS credentials handed in by whoever knows how to get them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class AwsCredentials:
    """An access key; with a session token when it is temporary."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


class CredentialSource(Protocol):
    """Where a store gets its credentials, before every request."""

    async def __call__(self, *, refresh: bool = False) -> AwsCredentials | None:
        """Credentials that are good now; None for anonymous access.

        Called often, so it must be fast when nothing changed. With *refresh*, S3 has refused the
        latest ones: get new ones if that is possible, else return the same.
        """
        ...


class FixedCredentials:
    """The same credentials for ever; None for anonymous access."""

    def __init__(self, credentials: AwsCredentials | None) -> None:
        self._credentials = credentials

    async def __call__(self, *, refresh: bool = False) -> AwsCredentials | None:
        """The credentials."""
        return self._credentials


class BlockingCredentials:
    """Credentials from a function that may block, such as a botocore session's.

    :param fetch: returns credentials that are good now; called in a thread, never twice at once.
    :param seconds: how long an answer is used before *fetch* is asked again.
    :param min_refresh_seconds: how soon after *fetch* a refusal may cause another: where rights
        are missing rather than expired, every request is refused.
    :param failed_seconds: how long what *fetch* raised is raised again, and it is not asked.
    :param patience_seconds: how long after its begin anybody waits for *fetch*.
    """

    def __init__(
        self,
        fetch: Callable[[], AwsCredentials | None],
        *,
        seconds: float = 60.0,
        min_refresh_seconds: float = 10.0,
        failed_seconds: float = 5.0,
        patience_seconds: float = 10.0,
    ) -> None:
        self._fetch = fetch
        self._seconds = seconds
        self._min_refresh_seconds = min_refresh_seconds
        self._failed_seconds = failed_seconds
        self._patience_seconds = patience_seconds
        self._credentials: AwsCredentials | None = None
        self._fetched_at = float("-inf")  # monotonic, as are the others
        self._fetching: asyncio.Future[AwsCredentials | None] | None = None  # or what has failed
        self._begun_at = self._failed_until = float("-inf")

    async def __call__(self, *, refresh: bool = False) -> AwsCredentials | None:
        """The latest credentials, fetched anew when they are due or refused.

        Raises what *fetch* does, and `StoreTimeout` where it does not come to an end.
        """
        limit = self._min_refresh_seconds if refresh else self._seconds
        if time.monotonic() - self._fetched_at < limit:
            return self._credentials
        fetching = self._fetching or self._begin()
        left = self._begun_at + self._patience_seconds - time.monotonic()
        await asyncio.wait([fetching], timeout=max(0.0, left))
        if not fetching.done():
            raise StoreTimeout("whoever has the AWS credentials does not answer")
        return fetching.result()
