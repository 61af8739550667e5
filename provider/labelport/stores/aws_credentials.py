"""AWS credentials handed in by whoever knows how to get them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from labelport.errors import StoreTimeout
from labelport.stores._blocking import in_own_thread


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

    :param fetch: returns credentials that are good now; called in a thread, and by one event loop
        never twice at once. What hangs in a loop that has ended keeps no other from asking.
    :param seconds: how long an answer is used before *fetch* is asked again.
    :param min_refresh_seconds: how soon after *fetch* a refusal may cause another: where rights
        are missing rather than expired, every request is refused.
    :param failed_seconds: for how long what *fetch* raised is raised again.
    :param patience_seconds: how long *fetch* may take before nobody waits for it any more. What it
        returns later is used.
    """

    def __init__(
        self,
        fetch: Callable[[], AwsCredentials | None],
        *,
        seconds: float = 60.0,
        min_refresh_seconds: float = 10.0,
        failed_seconds: float = 5.0,
        patience_seconds: float = 20.0,
    ) -> None:
        self._fetch = fetch
        self._seconds = seconds
        self._min_refresh_seconds = min_refresh_seconds
        self._failed_seconds = failed_seconds
        self._patience_seconds = patience_seconds
        self._credentials: AwsCredentials | None = None
        self._fetched_at = float("-inf")  # monotonic, as all of these
        self._again_at = float("-inf")
        self._begun_at = float("-inf")
        self._fetching: asyncio.Task[None] | None = None  # the latest

    async def __call__(self, *, refresh: bool = False) -> AwsCredentials | None:
        """The latest credentials, fetched anew when they are due or refused.

        Raises what *fetch* raised, or `StoreTimeout` while it does not end.
        """
        limit = self._min_refresh_seconds if refresh else self._seconds
        now = time.monotonic()
        if now - self._fetched_at < limit:
            return self._credentials
        fetching = self._fetching
        if fetching is None or (fetching.done() and now >= self._again_at):
            self._begun_at = now
            self._fetching = fetching = asyncio.create_task(self._fetch_anew())
            fetching.add_done_callback(lambda done: done.cancelled() or done.exception())
        if not fetching.done():  # what is done may be of a loop that has ended
            patience = self._begun_at + self._patience_seconds - now
            await asyncio.wait([fetching], timeout=max(0.0, patience))
        if not fetching.done():
            raise StoreTimeout("the AWS credentials are not there in time")
        fetching.result()
        return self._credentials

    async def _fetch_anew(self) -> None:
        try:
            self._credentials = await in_own_thread(self._fetch)
        except Exception:
            # Whoever waits raises it, and so does whoever comes soon after.
            self._again_at = time.monotonic() + self._failed_seconds
            raise
        self._fetched_at = time.monotonic()
