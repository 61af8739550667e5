"""Objects in this process: for tests, dry runs and examples."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import md5
from itertools import islice

from labelport.errors import (
    BucketNotFound,
    ConfigurationError,
    InvalidKey,
    InvalidRange,
    ObjectChanged,
    ObjectNotFound,
)
from labelport.model import ALL_KEYS, ByteRange, KeyRange, ObjectMeta, Page
from labelport.stores._whole import read_whole

CHUNK_BYTES = 1 << 20

#: What follows ``/`` in code-point order: ``a0`` is the first key that may follow folder ``a/``.
_AFTER_SLASH = "0"


@dataclass
class Bucket:
    """Objects by key. The keys are sorted when a listing needs them, not at every write."""

    objects: dict[str, tuple[bytes, ObjectMeta, str]] = field(default_factory=dict)
    _keys: list[str] = field(default_factory=list)
    _sorted: bool = True

    def put(self, meta: ObjectMeta, body: bytes, content_type: str) -> None:
        """Add or replace an object."""
        if meta.key not in self.objects:
            self._sorted = self._sorted and (not self._keys or meta.key > self._keys[-1])
            self._keys.append(meta.key)
        self.objects[meta.key] = (body, meta, content_type)

    def delete(self, key: str) -> None:
        """Remove an object, or do nothing."""
        if self.objects.pop(key, None) is not None:
            keys = self.keys()
            del keys[bisect_left(keys, key)]

    def keys(self) -> list[str]:
        """All keys in code-point order."""
        if not self._sorted:
            self._keys.sort()
            self._sorted = True
        return self._keys


#: The buckets of this process, by name.
_buckets: dict[str, Bucket] = {}


@dataclass
class MemoryStream:
    """An object's bytes as they were when it was opened."""

    body: bytes = field(repr=False)
    meta: ObjectMeta

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self.body), CHUNK_BYTES):
            yield self.body[start : start + CHUNK_BYTES]


class MemoryStore:
    """A bucket in this process, shared by every store of its name.

    :param create: make the bucket when there is none of this name yet.
    """

    scheme = "memory"
    ordered = True
    signs = False

    def __init__(self, bucket: str, *, create: bool = True) -> None:
        self.bucket = bucket
        if create:
            _buckets.setdefault(bucket, Bucket())

    def drop(self) -> None:
        """Remove the bucket and all it holds."""
        _buckets.pop(self.bucket, None)

    async def pages(
        self,
        prefix: str = "",
        keys: KeyRange = ALL_KEYS,
        *,
        recursive: bool = True,
        page_size: int = 1000,
    ) -> AsyncIterator[Page]:
        """See `Store.pages`. Writes between two pages show in the later one."""
        start = keys.after and keys.after + "\0"
        while entries := list(
            islice(self._entries(prefix, start, keys.until, recursive), page_size)
        ):
            yield Page(
                [e for e in entries if isinstance(e, ObjectMeta)],
                [e for e in entries if isinstance(e, str)],
            )
            last = entries[-1]
            start = last[:-1] + _AFTER_SLASH if isinstance(last, str) else last.key + "\0"

    def _entries(
        self, prefix: str, start: str, until: str | None, recursive: bool
    ) -> Iterator[ObjectMeta | str]:
        """The objects and, unless *recursive*, the folders from *start* on, in order."""
        bucket = self._bucket()
        keys = bucket.keys()
        index = bisect_left(keys, max(start, prefix))
        while index < len(keys):
            key = keys[index]
            if not key.startswith(prefix) or (until is not None and key > until):
                return
            slash = -1 if recursive else key.find("/", len(prefix))
            if slash < 0:
                yield bucket.objects[key][1]
                index += 1
            else:
                yield key[: slash + 1]
                index = bisect_left(keys, key[:slash] + _AFTER_SLASH, index)

    async def head(self, key: str) -> ObjectMeta:
        """See `Store.head`."""
        return self._object(key)[1]

    async def read(self, key: str, *, max_bytes: int) -> tuple[bytes, ObjectMeta]:
        """See `Store.read`."""
        async with self.open(key) as stream:
            return await read_whole(stream, max_bytes)

    @asynccontextmanager
    async def open(
        self, key: str, byte_range: ByteRange | None = None, *, etag: str | None = None
    ) -> AsyncIterator[MemoryStream]:
        """See `Store.open`."""
        body, meta = self._object(key)
        if etag and etag != meta.etag:
            raise ObjectChanged("the object was overwritten", uri=self._uri(key))
        if byte_range:
            body = body[byte_range.start : byte_range.stop]
            if not body:
                raise InvalidRange(f"the object has {meta.size} bytes", uri=self._uri(key))
        yield MemoryStream(body, meta)

    async def put(
        self,
        key: str,
        body: bytes,
        *,
        content_type: str = "application/json",
        if_absent: bool = False,
    ) -> str:
        """See `Store.put`."""
        if not key:
            raise InvalidKey("an object needs a key", uri=self._uri(key))
        bucket = self._bucket()
        if if_absent and key in bucket.objects:
            raise ObjectChanged("the object exists already", uri=self._uri(key))
        etag = md5(body, usedforsecurity=False).hexdigest()
        meta = ObjectMeta(key, len(body), etag, datetime.now(UTC))
        bucket.put(meta, bytes(body), content_type)
        return etag

    async def delete(self, key: str) -> None:
        """See `Store.delete`."""
        self._bucket().delete(key)

    async def sign(self, key: str, *, seconds: int, content_type: str | None = None) -> str:
        """Memory has no URLs."""
        raise ConfigurationError(f"{self._uri(key)}: objects in memory have no URL to sign")

    async def close(self) -> None:
        """Nothing to close: the bucket outlives its stores."""

    def _uri(self, key: str) -> str:
        return f"{self.scheme}://{self.bucket}/{key}"

    def _bucket(self) -> Bucket:
        try:
            return _buckets[self.bucket]
        except KeyError:
            raise BucketNotFound("there is no such bucket", uri=self._uri("")) from None

    def _object(self, key: str) -> tuple[bytes, ObjectMeta]:
        try:
            body, meta, content_type = self._bucket().objects[key]
        except KeyError:
            raise ObjectNotFound("there is no such object", uri=self._uri(key)) from None
        return body, meta._replace(content_type=content_type)
