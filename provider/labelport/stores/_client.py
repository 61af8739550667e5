"""Sign, send, try again, and say what a refusal means: one exchange with a cloud."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import TypeVar

from labelport.errors import (
    AccessDenied,
    InvalidRange,
    LabelportError,
    ObjectChanged,
    ObjectNotFound,
    StoreBusy,
    StoreError,
    StoreUnavailable,
)
from labelport.stores._dialect import Dialect, Request
from labelport.stores._response import Response, Sender, whole
from labelport.stores._retrying import Busy, retry_after_seconds
from labelport.stores._session import Session
from labelport.stores._wire import Wire
from labelport.stores.transport import Transport

log = logging.getLogger(__name__)

T = TypeVar("T")
#: Takes what it needs from a good answer, and releases it; called once for each good answer.
Consume = Callable[[Response], Awaitable[T]]

#: For answers that bring no error code we know.
STATUS_ERRORS: Mapping[int, type[LabelportError]] = MappingProxyType(
    {
        401: AccessDenied,
        403: AccessDenied,
        404: ObjectNotFound,
        408: StoreUnavailable,
        412: ObjectChanged,
        416: InvalidRange,
        429: StoreBusy,
        500: StoreUnavailable,
        502: StoreUnavailable,
        503: StoreBusy,
        504: StoreUnavailable,
    }
)

MAX_REFUSAL_BYTES = 64 << 10


class HttpClient:
    """Requests in one dialect. Its connections open with the first of them, in that event loop."""

    def __init__(self, dialect: Dialect, transport: Transport) -> None:
        self._dialect = dialect
        self._retry = transport.retry
        self._session: Sender = Session(transport)
        lean = transport.lean and transport.proxy is None
        self._reading: Sender = Wire(transport) if lean else self._session

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()
        await self._reading.close()

    async def send(
        self, uri: str, build: Callable[[], Awaitable[Request]], consume: Consume[T]
    ) -> T:
        """Build, send and consume until one attempt succeeds; each attempt is signed anew.

        Raises:
            StoreUnavailable: every attempt failed in a way that may pass.
        """
        failures = 0
        refreshed = False
        while True:
            request = await build()
            try:
                return await self._attempt(request, uri, consume)
            except AccessDenied:
                if refreshed or not await self._dialect.refresh(request.credentials):
                    raise
                refreshed = True
            except Busy as busy:
                failures += 1
                if failures >= self._retry.attempts:
                    raise busy.lasting(failures, uri) from None
                log.debug("%s %s, attempt %d: %s", request.method, uri, failures, busy)
                await self._retry.wait(failures, busy.after_seconds)

    async def _attempt(self, request: Request, uri: str, consume: Consume[T]) -> T:
        """Send once. Raises `Busy` when another attempt may succeed."""
        sender = self._reading if request.method in ("GET", "HEAD") else self._session
        response = await sender.send(request, uri)
        if response.status < 300:
            return await consume(response)
        body = await whole(response, MAX_REFUSAL_BYTES)
        raise self._error(request, response, body, uri)

    def _error(self, request: Request, response: Response, body: bytes, uri: str) -> Exception:
        """What a refusal means to us."""
        refusal = self._dialect.read_refusal(body, response.headers)
        status = response.status
        kind = self._dialect.errors.get(refusal.code) or STATUS_ERRORS.get(status, StoreError)
        if status == 400 and request.method == "HEAD":
            kind = AccessDenied  # no body says so, but it is what an expired token gets
        detail = " ".join(filter(None, (str(status), refusal.code, without_urls(refusal.message))))
        if issubclass(kind, StoreUnavailable):
            return Busy(detail, kind, retry_after_seconds(response.headers.get("Retry-After")))
        if issubclass(kind, StoreError):
            return kind(detail, uri=uri)
        return kind(f"{uri}: {detail}")


def without_urls(message: str) -> str:
    """A server's message, short and without query strings, which may be signatures."""
    return re.sub(r"\?\S+|\S*(?i:signature|credential|token)=\S*", "…", message)[:300]
