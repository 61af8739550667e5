"""Every cloud's store: what a dialect words, a client sends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

from labelport.errors import (
    BucketNotFound,
    FormatError,
    ObjectChanged,
    ObjectNotFound,
    StoreError,
)
from labelport.model import ALL_KEYS, ByteRange, KeyRange, ObjectMeta, Page
from labelport.stores._client import HttpClient
from labelport.stores._dialect import Dialect, Listing, ListingQuery, Request
from labelport.stores._download import Download
from labelport.stores._response import Response, drained, whole
from labelport.stores._retrying import Busy
from labelport.stores._whole import read_whole
from labelport.stores.transport import DEFAULT_TRANSPORT, Transport

__all__ = ["HttpStore", "Transport"]

MAX_LISTING_BYTES = 64 << 20


class HttpStore:
    """One bucket of a cloud that a `Dialect` describes. Lives and dies in one event loop."""

    signs = True

    def __init__(self, dialect: Dialect, transport: Transport = DEFAULT_TRANSPORT) -> None:
        self.scheme = dialect.scheme
        self.bucket = dialect.bucket
        self._dialect = dialect
        self._transport = transport
        self._ordered = dialect.ordered
        self._client = HttpClient(dialect, transport)

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

        async def consume(response: Response) -> Listing:
            body = await whole(response, MAX_LISTING_BYTES)
            try:
                return self._dialect.read_listing(body, response.headers)
            except ValueError as garbled:
                raise Busy(f"the answer is no listing: {garbled}") from None

        try:
            return await self._client.send(uri, lambda: self._dialect.listing(query), consume)
        except ObjectNotFound:
            raise BucketNotFound("there is no such bucket", uri=uri) from None

    async def head(self, key: str) -> ObjectMeta:
        """See `Store.head`."""

        async def consume(response: Response) -> ObjectMeta:
            await whole(response, 0)
            try:
                return self._dialect.meta(key, response.headers)
            except ValueError:
                raise StoreError("the store tells no size", uri=self._uri(key)) from None

        return await self._client.send(
            self._uri(key), lambda: self._dialect.request("HEAD", key, {}), consume
        )

    async def read(self, key: str, *, max_bytes: int) -> tuple[bytes, ObjectMeta]:
        """See `Store.read`."""
        async with self.open(key) as stream:
            return await read_whole(stream, max_bytes)

    def open(
        self, key: str, byte_range: ByteRange | None = None, *, etag: str | None = None
    ) -> Download:
        """See `Store.open`."""
        return Download(self._client, self._dialect, self._transport.retry, key, byte_range, etag)

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
            answered = await self._client.send(self._uri(key), build, drained)
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
            await self._client.send(
                self._uri(key), lambda: self._dialect.request("DELETE", key, {}), drained
            )
        except ObjectNotFound:
            return

    async def sign(self, key: str, *, seconds: int, content_type: str | None = None) -> str:
        """See `Store.sign`."""
        return await self._dialect.sign(key, seconds=seconds, content_type=content_type)

    async def close(self) -> None:
        """See `Store.close`."""
        await self._client.close()


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
