"""Object stores behind one protocol. A store is opened with ready credentials and closed by
whoever opened it; keys are opaque and go to the cloud as they are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from labelport.model import ALL_KEYS, ByteRange, KeyRange, ObjectMeta, Page


class ObjectStream(Protocol):
    """An object, or a range of one, being read."""

    meta: ObjectMeta  #: of the whole object, whatever the range

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The bytes, in chunks of up to about 1 MiB, each once and in order.

        A connection that breaks is resumed where it broke, under the same etag.

        Raises:
            ObjectChanged: the object was overwritten meanwhile.
            StoreUnavailable: the store kept failing.
        """
        ...


class Store(Protocol):
    """One bucket of one cloud, used in one event loop.

    Every method raises `StoreError`s that name the object's URI, and `ConfigurationError` when the
    store itself is set up wrongly (another region, an untrusted certificate).
    """

    scheme: str
    bucket: str

    @property
    def ordered(self) -> bool:
        """Whether listings come in code-point order, so that key ranges can be listed apart.

        Known for certain after the first page only; False may turn up then.
        """
        ...

    @property
    def signs(self) -> bool:
        """Whether `sign` gives URLs that browsers can use."""
        ...

    def pages(
        self,
        prefix: str = "",
        keys: KeyRange = ALL_KEYS,
        *,
        recursive: bool = True,
        page_size: int = 1000,
    ) -> AsyncIterator[Page]:
        """Pages of the objects whose key starts with *prefix* and lies in *keys*.

        Not *recursive*: objects directly in the folder *prefix* names (delimiter ``/``), with the
        folders beside them in `Page.prefixes`, each while keys below it may lie in *keys*. An
        unordered store may give keys out of order but none twice.

        Raises:
            BucketNotFound, AccessDenied, StoreUnavailable
        """
        ...

    async def head(self, key: str) -> ObjectMeta:
        """What the store knows of one object, without its bytes.

        Raises `ObjectNotFound`; for a missing bucket too, where the cloud does not tell which.
        """
        ...

    async def read(self, key: str, *, max_bytes: int) -> tuple[bytes, ObjectMeta]:
        """The whole object. Raises `FormatError` when it is larger than *max_bytes*."""
        ...

    def open(
        self, key: str, byte_range: ByteRange | None = None, *, etag: str | None = None
    ) -> AbstractAsyncContextManager[ObjectStream]:
        """Stream an object or a range of it; with *etag*, only while it still has that etag.

        Raises:
            InvalidRange: no byte of the object lies in the range, as with any range of an empty
                object.
            ObjectChanged: the object has another etag.
        """
        ...

    async def put(
        self,
        key: str,
        body: bytes,
        *,
        content_type: str = "application/json",
        if_absent: bool = False,
    ) -> str:
        """Write an object whole and return its etag, once the store has acknowledged it.

        With *if_absent*, raises `ObjectChanged` when the key exists already.
        """
        ...

    async def delete(self, key: str) -> None:
        """Delete an object; deleting one that is not there is no error."""
        ...

    async def sign(self, key: str, *, seconds: int, content_type: str | None = None) -> str:
        """A URL that lets its holder GET the object for *seconds*, served as *content_type*.

        Raises `ConfigurationError` where the store has no such URLs.
        """
        ...

    async def close(self) -> None:
        """Close the connections. A closed store cannot be used again."""
        ...
