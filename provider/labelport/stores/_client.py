"""Sign, send, try again, and say what a refusal means: one exchange with a cloud."""

from __future__ import annotations

import io
import logging
import re
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeVar

import aiohttp
import yarl

from labelport.errors import (
    AccessDenied,
    ConfigurationError,
    InvalidRange,
    LabelportError,
    ObjectChanged,
    ObjectNotFound,
    StoreError,
    StoreUnavailable,
)
from labelport.stores._dialect import Dialect, Request
from labelport.stores._download import TRANSPORT_ERRORS
from labelport.stores._retrying import Busy, RetryPolicy, retry_after_seconds

log = logging.getLogger(__name__)

T = TypeVar("T")
#: Takes what it needs from a good answer, and closes it; called once for each good answer.
Consume = Callable[[aiohttp.ClientResponse], Awaitable[T]]

#: For answers that bring no error code we know.
STATUS_ERRORS: Mapping[int, type[LabelportError]] = MappingProxyType(
    {
        401: AccessDenied,
        403: AccessDenied,
        404: ObjectNotFound,
        408: StoreUnavailable,
        412: ObjectChanged,
        416: InvalidRange,
        429: StoreUnavailable,
        500: StoreUnavailable,
        502: StoreUnavailable,
        503: StoreUnavailable,
        504: StoreUnavailable,
    }
)

MAX_REFUSAL_BYTES = 64 << 10
#: Bytes a connection holds before it stops reading: chunks are at most about twice this.
READ_BUFFER_BYTES = 256 << 10
#: Slower than this, an upload is taken for stalled.
MIN_UPLOAD_BYTES_PER_SECOND = 32 << 10


@dataclass(frozen=True)
class Transport:
    """How to reach a cloud: connections, timeouts, TLS, retries."""

    connections: int = 64  #: at once, and kept for reuse
    connect_seconds: float = 10.0
    read_seconds: float = 30.0  #: without a byte, until a connection counts as broken
    tls: ssl.SSLContext | bool = True  #: False: certificates are not checked
    proxy: str | None = field(default=None, repr=False)  #: URL of an HTTP proxy
    retry: RetryPolicy = field(default_factory=RetryPolicy)


DEFAULT_TRANSPORT = Transport()


class HttpClient:
    """Requests in one dialect. Its connections open with the first of them, in that event loop."""

    def __init__(self, dialect: Dialect, transport: Transport) -> None:
        self._dialect = dialect
        self._transport = transport
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

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
                if failures >= self._transport.retry.attempts:
                    raise StoreUnavailable(f"{busy}, {failures} times", uri=uri) from None
                log.debug("%s %s, attempt %d: %s", request.method, uri, failures, busy)
                await self._transport.retry.wait(failures, busy.after_seconds)

    async def _attempt(self, request: Request, uri: str, consume: Consume[T]) -> T:
        """Send once. Raises `Busy` when another attempt may succeed."""
        try:
            response = await self._talk(request)
            if response.status < 300:
                return await consume(response)
            body = await whole(response, MAX_REFUSAL_BYTES)
        except aiohttp.ClientConnectorCertificateError as failure:
            reason = f"the certificate of {failure.host} is not trusted"
            error: Exception = ConfigurationError(f"{uri}: {reason}")
        except aiohttp.InvalidURL:
            error = ConfigurationError(f"{uri}: the endpoint is no URL")
        except TRANSPORT_ERRORS as failure:
            error = Busy(f"the connection failed ({type(failure).__name__})")
        else:
            error = self._error(response, body, uri)
        # Outside of the handlers: the text of aiohttp's errors may hold the signed URL.
        raise error

    def _error(self, response: aiohttp.ClientResponse, body: bytes, uri: str) -> Exception:
        """What a refusal means to us."""
        refusal = self._dialect.read_refusal(body, response.headers)
        status = response.status
        kind = self._dialect.errors.get(refusal.code) or STATUS_ERRORS.get(status, StoreError)
        if status == 400 and response.method == "HEAD":
            kind = AccessDenied  # no body says so, but it is what an expired token gets
        detail = " ".join(filter(None, (str(status), refusal.code, without_urls(refusal.message))))
        if kind is StoreUnavailable:
            return Busy(detail, retry_after_seconds(response.headers.get("Retry-After")))
        if issubclass(kind, StoreError):
            return kind(detail, uri=uri)
        return kind(f"{uri}: {detail}")

    async def _talk(self, request: Request) -> aiohttp.ClientResponse:
        """Send a request as it is; nothing is followed, decoded or normalised."""
        session = self._session or self._opened()
        return await session.request(
            request.method,
            yarl.URL(request.url, encoded=True),
            headers=request.headers,
            # As a file, so that a large body does not go through in one blocking write.
            data=io.BytesIO(request.body) if request.body else None,
            allow_redirects=False,
            timeout=self._timeout(request),
        )

    def _opened(self) -> aiohttp.ClientSession:
        """The session of all requests, opened in the loop that the first one runs in."""
        transport = self._transport
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=transport.connections, ssl=transport.tls),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            read_bufsize=READ_BUFFER_BYTES,
            proxy=transport.proxy,
            # Compressed on the way, a body has another length and other ranges.
            headers={"Accept-Encoding": "identity", "User-Agent": "labelport"},
            skip_auto_headers=("Content-Type",),
        )
        # It would send a conditional PUT again behind our back, and take the 412 for the answer.
        self._session._retry_connection = False
        return self._session

    def _timeout(self, request: Request) -> aiohttp.ClientTimeout:
        """No total for what may be a long stream; a total for uploads, whose stall nothing sees."""
        total = None
        if request.method != "GET":
            total = 2 * self._transport.read_seconds
            total += len(request.body) / MIN_UPLOAD_BYTES_PER_SECOND
        return aiohttp.ClientTimeout(
            total=total,
            sock_connect=self._transport.connect_seconds,
            sock_read=self._transport.read_seconds,
        )


async def whole(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    """The body, up to *max_bytes*; the rest is not read."""
    async with response:
        chunks = []
        missing = max_bytes
        async for chunk in response.content.iter_any():
            chunks.append(chunk[:missing])
            missing -= len(chunks[-1])
            if not missing:
                break
        return b"".join(chunks)


async def drained(response: aiohttp.ClientResponse) -> Mapping[str, str]:
    """The headers, once the body has been read away."""
    await whole(response, MAX_REFUSAL_BYTES)
    return response.headers


async def still_open(response: aiohttp.ClientResponse) -> aiohttp.ClientResponse:
    """The response itself: its consumer streams and closes it."""
    return response


def without_urls(message: str) -> str:
    """A server's message, short and without query strings, which may be signatures."""
    return re.sub(r"\?\S+|\S*(?i:signature|credential|token)=\S*", "…", message)[:300]
