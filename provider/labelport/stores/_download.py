"""Reading one object over HTTP: each byte once and in order, through broken connections."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import aiohttp

from labelport.errors import InvalidRange, ObjectChanged, StoreError, StoreUnavailable
from labelport.model import ByteRange, ObjectMeta
from labelport.stores._dialect import Dialect
from labelport.stores._retrying import RetryPolicy

log = logging.getLogger(__name__)

#: How the network fails. Their texts may hold a signed URL: name the type, chain nothing.
TRANSPORT_ERRORS = (aiohttp.ClientError, OSError, TimeoutError)

#: Sends a GET with these headers, trying again as the policy says.
Get = Callable[[Mapping[str, str]], Awaitable[aiohttp.ClientResponse]]


class Download:
    """An `ObjectStream` over HTTP. Iterated once; whoever opened it closes it."""

    meta: ObjectMeta
    content_type: str

    def __init__(
        self, get: Get, dialect: Dialect, retry: RetryPolicy, key: str, byte_range: ByteRange | None
    ) -> None:
        self._get = get
        self._dialect = dialect
        self._retry = retry
        self._key = key
        self._uri = f"{dialect.scheme}://{dialect.bucket}/{key}"
        self._range = byte_range
        self._position = byte_range.start if byte_range else 0
        self._response: aiohttp.ClientResponse | None = None

    async def start(self, etag: str | None) -> None:
        """Send the request and learn of the object; with *etag*, refuse any other version."""
        headers: dict[str, str] = {}
        if self._range:
            if self._range.stop is not None and self._range.stop <= self._range.start:
                raise InvalidRange("the range holds no byte", uri=self._uri)
            headers["Range"] = http_range(self._range.start, self._range.stop)
        self._response = await self._get(headers | dict(self._dialect.if_match(etag or "")))
        self.meta = self._checked(self._response, etag)
        self.content_type = self._response.headers.get("Content-Type", "application/octet-stream")
        if self._range and self._position >= self.meta.size:
            raise InvalidRange(f"the object has {self.meta.size} bytes", uri=self._uri)
        asked = self._range.stop if self._range else None
        self._stop = self.meta.size if asked is None else min(asked, self.meta.size)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        fruitless = 0
        while self._position < self._stop:
            assert self._response is not None  # noqa: S101 # started
            before, reason = self._position, "ended early"
            try:
                async for chunk in self._response.content.iter_any():
                    piece = chunk[: self._stop - self._position]
                    self._position += len(piece)
                    yield piece
                    if self._position == self._stop:
                        return
            except TRANSPORT_ERRORS as failure:
                reason = type(failure).__name__
            fruitless = 1 if self._position > before else fruitless + 1
            if fruitless >= self._retry.attempts:
                raise StoreUnavailable(
                    f"reading broke off at byte {self._position}: {reason}", uri=self._uri
                )
            log.debug("resuming %s at byte %d: %s", self._uri, self._position, reason)
            await self._retry.wait(fruitless)
            await self._resume()

    async def _resume(self) -> None:
        """Ask for the rest of the same version of the object."""
        self.close()
        if not self.meta.etag:
            raise StoreUnavailable(
                "reading broke off, and the store gives no etag to resume by", uri=self._uri
            )
        headers = {"Range": http_range(self._position, self._stop)}
        self._response = await self._get(headers | dict(self._dialect.if_match(self.meta.etag)))
        self._checked(self._response, self.meta.etag)

    def _checked(self, response: aiohttp.ClientResponse, etag: str | None) -> ObjectMeta:
        """What the answer says of the object, once it is sure to be the part we asked for."""
        try:
            meta = self._dialect.meta(self._key, response.headers)
        except ValueError:
            raise StoreError(
                "the store does not tell how long the object is", uri=self._uri
            ) from None
        # Some stores ignore If-Match, and some ignore Range.
        if etag and meta.etag != etag:
            raise ObjectChanged("the object was overwritten", uri=self._uri)
        if response.status == 206:
            begins = response.headers.get("Content-Range", "").removeprefix("bytes ")
            if begins.partition("-")[0] != str(self._position):
                raise StoreError("the store answered with another range", uri=self._uri)
        elif self._position and self._position < meta.size:
            raise StoreError("the store ignores ranges", uri=self._uri)
        return meta

    def close(self) -> None:
        """Give the connection back; it is kept when everything has been read, else closed."""
        if self._response is not None:
            self._response.release()


def http_range(start: int, stop: int | None) -> str:
    """The value of a ``Range`` header; HTTP counts the last byte in."""
    return f"bytes={start}-{'' if stop is None else stop - 1}"
