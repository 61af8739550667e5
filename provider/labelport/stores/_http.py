"""Sign, then talk HTTP: every operation of every cloud is this one step."""

from __future__ import annotations

import io
import logging
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TypeVar

import aiohttp
import yarl

from labelport.errors import (
    AccessDenied,
    BucketNotFound,
    ConfigurationError,
    FormatError,
    InvalidRange,
    LabelportError,
    ObjectChanged,
    ObjectNotFound,
    StoreError,
    StoreUnavailable,
)
from labelport.model import ALL_KEYS, ByteRange, KeyRange, ObjectMeta, Page
from labelport.stores._dialect import Dialect, Listing, ListingQuery, Request
from labelport.stores._download import TRANSPORT_ERRORS, Download
from labelport.stores._retrying import Busy, RetryPolicy, retry_after_seconds
from labelport.stores._whole import read_whole

log = logging.getLogger(__name__)

T = TypeVar("T")
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

MAX_LISTING_BYTES = 64 << 20
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


class HttpStore:
    """One bucket of a cloud that a `Dialect` describes. Lives and dies in one event loop."""

    def __init__(self, dialect: Dialect, transport: Transport = Transport()) -> None:
        self.scheme = dialect.scheme
        self.bucket = dialect.bucket
        self._dialect = dialect
        self._transport = transport
        self._ordered = dialect.ordered
        self._session: aiohttp.ClientSession | None = None

    @property
    def ordered(self) -> bool:
        """Whether listings come in code-point order; known for certain after the first page."""
        return self._ordered

    def _uri(self, key: str = "") -> str:
        return f"{self.scheme}://{self.bucket}/{key}"

    async def pages(
        self,
        prefix: str = "",
        keys: KeyRange = ALL_KEYS,
        *,
        recursive: bool = True,
        page_size: int = 1000,
    ) -> AsyncIterator[Page]:
        """See `Store.pages`."""
        wanted = ListingQuery(prefix, keys, recursive, page_size)
        # Where order is not code-point order, "start after" skips the wrong keys.
        query = wanted if self._ordered else replace(wanted, keys=ALL_KEYS)
        while True:
            listing = await self._list(query)
            if not listing.ordered:
                self._ordered = False
                if query.keys.after:
                    query = replace(wanted, keys=ALL_KEYS)
                    continue
            page, past_the_end = cut(listing, keys)
            if page.objects or page.prefixes:
                yield page
            if listing.token is None or (past_the_end and listing.ordered):
                return
            if listing.token == query.token:
                raise StoreError("the listing does not advance", uri=self._uri(prefix))
            query = replace(query, token=listing.token)

    async def _list(self, query: ListingQuery) -> Listing:
        uri = self._uri(query.prefix)

        async def consume(response: aiohttp.ClientResponse) -> Listing:
            body = await whole(response, MAX_LISTING_BYTES)
            try:
                return self._dialect.read_listing(body, response.headers)
            except ValueError as garbled:
                raise Busy(f"the answer is no listing: {garbled}", uri=uri) from None

        try:
            return await self._send(uri, lambda: self._dialect.listing(query), consume)
        except ObjectNotFound:
            raise BucketNotFound("there is no such bucket", uri=uri) from None

    async def head(self, key: str) -> ObjectMeta:
        """See `Store.head`."""

        async def consume(response: aiohttp.ClientResponse) -> ObjectMeta:
            async with response:
                try:
                    return self._dialect.meta(key, response.headers)
                except ValueError:
                    raise StoreError("the store tells no size", uri=self._uri(key)) from None

        return await self._send(
            self._uri(key), lambda: self._dialect.request("HEAD", key, {}), consume
        )

    async def read(self, key: str, *, max_bytes: int) -> tuple[bytes, ObjectMeta]:
        """See `Store.read`."""
        async with self.open(key) as stream:
            return await read_whole(stream, max_bytes)

    @asynccontextmanager
    async def open(
        self, key: str, byte_range: ByteRange | None = None, *, etag: str | None = None
    ) -> AsyncIterator[Download]:
        """See `Store.open`."""

        async def get(headers: Mapping[str, str]) -> aiohttp.ClientResponse:
            return await self._send(
                self._uri(key), lambda: self._dialect.request("GET", key, headers), still_open
            )

        download = Download(get, self._dialect, self._transport.retry, key, byte_range)
        try:
            await download.start(etag)
            yield download
        finally:
            download.close()

    async def put(
        self,
        key: str,
        body: bytes,
        *,
        content_type: str = "application/json",
        if_absent: bool = False,
    ) -> str:
        """See `Store.put`."""
        headers = self._dialect.put_headers(body, content_type, if_absent=if_absent)
        attempts = 0

        async def build() -> Request:
            nonlocal attempts
            attempts += 1
            return await self._dialect.request("PUT", key, headers, body)

        try:
            answered = await self._send(self._uri(key), build, drained)
        except ObjectChanged:
            # An attempt whose answer was lost may have written the object.
            if attempts > 1 and (etag := await self._etag_of_same(key, body)):
                return etag
            raise
        return answered.get("ETag", "").strip('"')

    async def _etag_of_same(self, key: str, body: bytes) -> str | None:
        """The etag of the object when its bytes are *body*."""
        try:
            found, meta = await self.read(key, max_bytes=len(body))
        except (FormatError, StoreError):
            return None
        return meta.etag if found == body else None

    async def delete(self, key: str) -> None:
        """See `Store.delete`."""
        try:
            await self._send(
                self._uri(key), lambda: self._dialect.request("DELETE", key, {}), drained
            )
        except ObjectNotFound:
            return

    async def sign(self, key: str, *, seconds: int, content_type: str | None = None) -> str:
        """See `Store.sign`."""
        return await self._dialect.sign(key, seconds=seconds, content_type=content_type)

    async def close(self) -> None:
        """See `Store.close`."""
        if self._session is not None:
            await self._session.close()

    async def _send(
        self, uri: str, build: Callable[[], Awaitable[Request]], consume: Consume[T]
    ) -> T:
        """Build, send and consume until one attempt succeeds; each attempt is signed anew."""
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
                    raise
                log.debug("attempt %d of %s failed: %s", failures, request.method, busy)
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
            error: LabelportError = ConfigurationError(f"{uri}: {reason}")
        except aiohttp.InvalidURL:
            error = ConfigurationError(f"{uri}: the endpoint is no URL")
        except TRANSPORT_ERRORS as failure:
            error = Busy(f"the connection failed: {type(failure).__name__}", uri=uri)
        else:
            error = self._error(response, body, uri)
        # Outside of the handlers: the text of aiohttp's errors may hold the signed URL.
        raise error

    def _error(self, response: aiohttp.ClientResponse, body: bytes, uri: str) -> LabelportError:
        """What a refusal means to us."""
        refusal = self._dialect.read_refusal(body, response.headers)
        status = response.status
        kind = self._dialect.errors.get(refusal.code) or STATUS_ERRORS.get(status, StoreError)
        if status == 400 and response.method == "HEAD":
            kind = AccessDenied  # no body says so, but it is what an expired token gets
        detail = " ".join(filter(None, (str(status), refusal.code, without_urls(refusal.message))))
        if kind is StoreUnavailable:
            after = retry_after_seconds(response.headers.get("Retry-After"))
            return Busy(detail, uri=uri, after_seconds=after)
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


def cut(listing: Listing, keys: KeyRange) -> tuple[Page, bool]:
    """The part of a listing inside *keys*, and whether it reaches their end.

    A folder is in while some key below it may be.
    """
    objects, prefixes = listing.objects, listing.prefixes
    if keys.after:
        objects = [o for o in objects if o.key > keys.after]
        prefixes = [p for p in prefixes if p > keys.after or keys.after.startswith(p)]
    if keys.until is None:
        return Page(objects, prefixes), False
    until = keys.until
    past = any(p > until for p in prefixes) or bool(objects and objects[-1].key >= until)
    return Page([o for o in objects if o.key <= until], [p for p in prefixes if p <= until]), past


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
