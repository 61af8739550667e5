"""A proxy on an empty catalog, and folders that note what the proxy asks of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from labelport.catalog import Catalog
from labelport.model import ByteRange, ObjectMeta, Storage
from labelport.stores import ObjectStream, Store
from labelport.stores.local import LocalStore
from proxies import Answer, Running, proxy


@contextmanager
def served(
    template: Path, folder: Path, opener: Callable[[Storage], Store] | None = None, **changes: Any
) -> Iterator[tuple[Catalog, Running]]:
    """A new catalog in *folder*, and a proxy on it."""
    url = f"sqlite:///{shutil.copy(template, folder / 'catalog.db')}"
    with Catalog(url) as catalog, proxy(Catalog(url), opener, **changes) as running:
        yield catalog, running


@dataclass
class Root:
    """A folder of buckets, which opens storages and notes which keys were asked for."""

    path: Path
    asked: list[str] = field(default_factory=list)

    def __call__(self, storage: Storage) -> Store:
        return _Noting(self, storage.bucket)

    def put(self, bucket: str, key: str, body: bytes = b"bytes") -> None:
        place = self.path / bucket / key
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(body)


class _Noting(LocalStore):
    def __init__(self, root: Root, bucket: str) -> None:
        super().__init__(root.path, bucket)
        self._asked = root.asked

    async def head(self, key: str) -> ObjectMeta:
        self._asked.append(key)
        return await super().head(key)

    def open(
        self, key: str, byte_range: ByteRange | None = None, *, etag: str | None = None
    ) -> AbstractAsyncContextManager[ObjectStream]:
        self._asked.append(key)
        return super().open(key, byte_range, etag=etag)


def verdict(answer: Answer) -> tuple[int, str]:
    """The status of an answer, and the word that says why it is no success."""
    body = msgspec.json.decode(answer.body) if answer.status >= 400 and answer.body else {}
    return answer.status, body.get("error", "")


def told(answer: Answer) -> tuple[int, dict[str, str], bytes]:
    """All that an answer tells, but for what tells one request from the next."""
    request_id = answer.headers["x-request-id"]
    apart = {k: v for k, v in answer.headers.items() if k not in ("date", "x-request-id")}
    return answer.status, apart, answer.body.replace(request_id.encode(), b"")
