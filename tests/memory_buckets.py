"""Buckets in memory for tests of the engine, and stores that misbehave in one way each."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from labelport.errors import StoreError
from labelport.model import ALL_KEYS, ByteRange, KeyRange, ObjectMeta, Page, Storage
from labelport.stores import ObjectStream
from labelport.stores.memory import MemoryStore


class Bucket:
    """A bucket of its own, filled and emptied without a loop around every call."""

    def __init__(self, objects: Mapping[str, bytes] | None = None) -> None:
        self.name = f"bucket-{uuid.uuid4().hex}"
        self.put(objects or {})

    def put(self, objects: Mapping[str, bytes | str]) -> None:
        async def put_all() -> None:
            store = MemoryStore(self.name)
            for key, body in objects.items():
                await store.put(key, body.encode() if isinstance(body, str) else body)

        asyncio.run(put_all())

    def delete(self, *keys: str) -> None:
        async def delete_all() -> None:
            store = MemoryStore(self.name)
            for key in keys:
                await store.delete(key)

        asyncio.run(delete_all())

    def location(self, prefix: str = "") -> str:
        return f"memory://{self.name}/{prefix}"

    def open(self, storage: Storage) -> MemoryStore:
        return MemoryStore(storage.bucket)


class Wrapped(MemoryStore):
    """A memory store whose reads first ask *refuse*: an error it returns is raised."""

    def __init__(self, bucket: str, refuse: Callable[[str], StoreError | None]) -> None:
        super().__init__(bucket)
        self._refuse = refuse

    async def read(self, key: str, *, max_bytes: int) -> tuple[bytes, ObjectMeta]:
        error = self._refuse(key)
        if error is not None:
            raise error
        return await super().read(key, max_bytes=max_bytes)

    def open(
        self, key: str, byte_range: ByteRange | None = None, *, etag: str | None = None
    ) -> AbstractAsyncContextManager[ObjectStream]:
        error = self._refuse(key)
        if error is not None:
            raise error
        return super().open(key, byte_range, etag=etag)


class Shuffled(MemoryStore):
    """A memory store that lists in tree order, as SeaweedFS does: ``a/b`` before ``a-b``."""

    ordered = False  # type: ignore[assignment]

    async def pages(
        self, prefix: str = "", keys: KeyRange = ALL_KEYS, **options: Any
    ) -> AsyncIterator[Page]:
        found = [meta async for page in super().pages(prefix, **options) for meta in page.objects]
        found.sort(key=lambda meta: meta.key.split("/"))
        inside = [meta for meta in found if meta.key in keys]
        for start in range(0, len(inside), 3):
            yield Page(inside[start : start + 3])
