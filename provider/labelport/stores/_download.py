"""Reading one object over HTTP: each byte once and in order, through broken connections."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from labelport.errors import InvalidRange, ObjectChanged, StoreError, StoreUnavailable
from labelport.model import ByteRange, ObjectMeta
from labelport.stores._client import HttpClient
from labelport.stores._dialect import Dialect
from labelport.stores._response import Response, still_open
from labelport.stores._retrying import Busy, RetryPolicy

log = logging.getLogger(__name__)


class Download:
    """An `ObjectStream` over HTTP, from entering it to leaving it. Iterated once."""

    meta: ObjectMeta

    def __init__(
        self,
        client: HttpClient,
        dialect: Dialect,
        retry: RetryPolicy,
        key: str,
        byte_range: ByteRange | None,
        etag: str | None,
    ) -> None:
        self._client = client
        self._dialect = dialect
        self._retry = retry
        self._key = key
        self._uri = f"{dialect.scheme}://{dialect.bucket}/{key}"
        self._range = byte_range
        self._etag = etag
        self._position = byte_range.start if byte_range else 0
        self._fruitless = 0  # breaks since the latest byte
        self._response: Response | None = None

    async def __aenter__(self) -> Download:
        """Send the request and learn of the object; with an etag, refuse any other version."""
        headers: dict[str, str] = {}
        if self._range:
            if self._range.stop is not None and self._range.stop <= self._range.start:
                raise InvalidRange("the range holds no byte", uri=self._uri)
            headers["Range"] = http_range(self._range.start, self._range.stop)
        self._response = await self._get(headers, self._etag)
        try:
            self.meta = self._checked(self._response, self._etag)
            if self._range and self._position >= self.meta.size:
                raise InvalidRange(f"the object has {self.meta.size} bytes", uri=self._uri)
        except StoreError:
            self._response.release()
            raise
        asked = self._range.stop if self._range else None
        self._stop = self.meta.size if asked is None else min(asked, self.meta.size)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give the connection back; it is kept when everything has been read, else closed."""
        assert self._response is not None  # noqa: S101 # entered
        self._response.release()

    async def _get(self, headers: Mapping[str, str], etag: str | None) -> Response:
        """Send a GET, trying again as the policy says."""
        headers = {**headers, **self._dialect.if_match(etag or "")}
        return await self._client.send(
            self._uri, lambda: self._dialect.request("GET", self._key, headers), still_open
        )

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        assert self._response is not None  # noqa: S101 # entered
        while self._position < self._stop:
            try:
                chunk = await self._response.chunk()
            except Busy as busy:
                await self._resume(self._response, busy)
                continue
            if chunk:
                piece = chunk[: self._stop - self._position]
                self._position += len(piece)
                self._fruitless = 0
                return piece
            await self._resume(self._response, Busy("it ended early"))
        raise StopAsyncIteration

    async def _resume(self, response: Response, broken: Busy) -> None:
        """Ask for the rest of the same version of the object, not again and again in vain."""
        self._fruitless += 1
        reason = f"reading broke off at byte {self._position}: {broken}"
        if self._fruitless >= self._retry.attempts:
            raise broken.kind(reason, uri=self._uri)
        log.debug("resuming %s: %s", self._uri, reason)
        await self._retry.wait(self._fruitless)
        response.release()
        if not self.meta.etag:
            raise StoreUnavailable(
                "reading broke off, and the store gives no etag to resume by", uri=self._uri
            )
        headers = {"Range": http_range(self._position, self._stop)}
        self._response = await self._get(headers, self.meta.etag)
        self._checked(self._response, self.meta.etag)

    def _checked(self, response: Response, etag: str | None) -> ObjectMeta:
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


def http_range(start: int, stop: int | None) -> str:
    """The value of a ``Range`` header; HTTP counts the last byte in."""
    return f"bytes={start}-{'' if stop is None else stop - 1}"
