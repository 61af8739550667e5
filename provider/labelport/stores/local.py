"""Files below a folder, as a store: a bucket is a folder directly below the root."""

from __future__ import annotations

import asyncio
import mimetypes
import os
import secrets
import stat
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from itertools import islice
from pathlib import Path

from labelport.errors import (
    BucketNotFound,
    ConfigurationError,
    InvalidKey,
    InvalidRange,
    ObjectChanged,
    ObjectNotFound,
)
from labelport.model import ALL_KEYS, ByteRange, KeyRange, ObjectMeta, Page
from labelport.stores._local_tree import (
    TEMPORARY,
    file_meta,
    folder,
    meta_of,
    segments,
    walk,
)
from labelport.stores._whole import read_whole

CHUNK_BYTES = 1 << 20


class FileStream:
    """A file being read, at most up to the size it had when it was opened."""

    def __init__(
        self,
        descriptor: int,
        meta: ObjectMeta,
        byte_range: ByteRange | None,
        uri: str,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        self.meta = meta
        self._chunk_bytes = chunk_bytes
        self._descriptor = descriptor
        self._uri = uri
        asked = byte_range or ByteRange(0)
        self._position = asked.start
        self._stop = meta.size if asked.stop is None else min(asked.stop, meta.size)
        if byte_range and self._position >= self._stop:
            raise InvalidRange(f"the file has {meta.size} bytes", uri=uri)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while self._position < self._stop:
            count = min(self._chunk_bytes, self._stop - self._position)
            chunk = await asyncio.to_thread(self._read, count)
            self._position += len(chunk)
            yield chunk

    def _read(self, count: int) -> bytes:
        """The next bytes, if the file still is what it was: others may write into it."""
        chunk = os.pread(self._descriptor, count, self._position)
        if not chunk or meta_of(self.meta.key, os.fstat(self._descriptor)).etag != self.meta.etag:
            raise ObjectChanged("the file was written to while it was read", uri=self._uri)
        return chunk


class LocalStore:
    """The folder *bucket* below *root*; keys are paths below it.

    Symbolic links are not followed and not listed; nor is anything but files. The root itself may
    be a link: it is the operator's.

    :param chunk_bytes: how much of a file is read at a time.
    """

    scheme = "file"
    ordered = True
    signs = False

    def __init__(
        self, root: str | os.PathLike[str], bucket: str, *, chunk_bytes: int = CHUNK_BYTES
    ) -> None:
        if bucket in ("", ".", "..") or "/" in bucket or "\0" in bucket:
            raise ConfigurationError(f"{bucket!r} is not the name of a folder below the root")
        self.bucket = bucket
        self._root = os.fspath(Path(root).absolute())
        self._chunk_bytes = chunk_bytes

    async def pages(
        self,
        prefix: str = "",
        keys: KeyRange = ALL_KEYS,
        *,
        recursive: bool = True,
        page_size: int = 1000,
    ) -> AsyncIterator[Page]:
        """See `Store.pages`. A folder shows in `Page.prefixes` even when it holds no file."""
        entries = self._entries(prefix, keys, recursive)
        try:
            while page := await asyncio.to_thread(lambda: list(islice(entries, page_size))):
                yield Page(
                    [e for e in page if isinstance(e, ObjectMeta)],
                    [e for e in page if isinstance(e, str)],
                )
        finally:
            entries.close()

    def _entries(
        self, prefix: str, keys: KeyRange, recursive: bool
    ) -> Generator[ObjectMeta | str, None, None]:
        base = prefix[: prefix.rfind("/") + 1]
        parts = segments(base[:-1], self._uri(prefix)) if base else []
        with suppress(ObjectNotFound), self._folder(parts, prefix) as descriptor:
            yield from walk(descriptor, base, prefix, keys, recursive=recursive)

    async def head(self, key: str) -> ObjectMeta:
        """See `Store.head`."""

        def look() -> ObjectMeta:
            *parents, name = self._segments(key)
            with self._folder(parents, key) as descriptor:
                meta = file_meta(descriptor, name, key)
            if meta is None:
                raise ObjectNotFound("there is no such file", uri=self._uri(key))
            return typed(meta)

        return await asyncio.to_thread(look)

    async def read(self, key: str, *, max_bytes: int) -> tuple[bytes, ObjectMeta]:
        """See `Store.read`."""
        async with self.open(key) as stream:
            return await read_whole(stream, max_bytes)

    @asynccontextmanager
    async def open(
        self, key: str, byte_range: ByteRange | None = None, *, etag: str | None = None
    ) -> AsyncIterator[FileStream]:
        """See `Store.open`."""
        descriptor = await asyncio.to_thread(self._open, key)
        try:
            meta = typed(meta_of(key, os.fstat(descriptor)))
            if etag and etag != meta.etag:
                raise ObjectChanged("the file was overwritten", uri=self._uri(key))
            yield FileStream(descriptor, meta, byte_range, self._uri(key), self._chunk_bytes)
        finally:
            os.close(descriptor)

    def _open(self, key: str) -> int:
        *parents, name = self._segments(key)
        with self._folder(parents, key) as parent:
            # Without O_NONBLOCK, opening a pipe waits for somebody to write to it.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(name, flags, dir_fd=parent)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise ObjectNotFound("this is no file", uri=self._uri(key))
        return descriptor

    async def put(
        self,
        key: str,
        body: bytes,
        *,
        content_type: str = "application/json",
        if_absent: bool = False,
    ) -> str:
        """See `Store.put`. Readers see the old file or the new one, never a part."""
        return await asyncio.to_thread(self._put, key, body, if_absent)

    def _put(self, key: str, body: bytes, if_absent: bool) -> str:
        *parents, name = self._segments(key)
        with self._parents_made(parents, key) as parent:
            temporary = TEMPORARY + secrets.token_hex(8)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            try:
                with os.fdopen(os.open(temporary, flags, 0o666, dir_fd=parent), "wb") as file:
                    file.write(body)
                    file.flush()
                    os.fsync(file.fileno())
                    etag = meta_of(key, os.fstat(file.fileno())).etag
                self._publish(temporary, name, parent, key, if_absent)
                os.fsync(parent)
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(temporary, dir_fd=parent)
        return etag

    def _publish(self, temporary: str, name: str, parent: int, key: str, if_absent: bool) -> None:
        """Give a finished file its name; a link, unlike a renaming, replaces nothing."""
        try:
            if if_absent:
                os.link(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
            else:
                os.replace(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
        except FileExistsError as exists:
            raise ObjectChanged("the file exists already", uri=self._uri(key)) from exists
        except IsADirectoryError as exists:
            raise InvalidKey("a folder has this name", uri=self._uri(key)) from exists

    @contextmanager
    def _parents_made(self, parents: list[str], key: str) -> Iterator[int]:
        """The open folder for a new file. A file where a folder must be makes the key invalid."""
        with self._folder([], key):
            pass  # a bucket is never made
        try:
            with folder(self._root, [self.bucket, *parents], self._uri(key), create=True) as parent:
                yield parent
        except ObjectNotFound as blocked:
            raise InvalidKey("a part of the key is a file or link", uri=self._uri(key)) from blocked

    async def delete(self, key: str) -> None:
        """See `Store.delete`. Folders stay."""

        def remove() -> None:
            *parents, name = self._segments(key)
            with suppress(ObjectNotFound), self._folder(parents, key) as descriptor:
                if file_meta(descriptor, name, key):
                    os.unlink(name, dir_fd=descriptor)

        await asyncio.to_thread(remove)

    async def sign(self, key: str, *, seconds: int, content_type: str | None = None) -> str:
        """Files have no URLs."""
        raise ConfigurationError(f"{self._uri(key)}: files have no URL to sign; turn presign off")

    async def close(self) -> None:
        """Nothing to close: files are open only while they are read."""

    def _uri(self, key: str) -> str:
        return f"{self.scheme}://{self.bucket}/{key}"

    def _segments(self, key: str) -> list[str]:
        return segments(key, self._uri(key))

    @contextmanager
    def _folder(self, parts: list[str], key: str) -> Iterator[int]:
        """An open folder in the bucket. Raises `BucketNotFound`, `ObjectNotFound`."""
        try:
            with folder(self._root, [self.bucket, *parts], self._uri(key)) as descriptor:
                yield descriptor
        except ObjectNotFound as missing:
            bucket = Path(self._root, self.bucket)
            if bucket.is_symlink() or not bucket.is_dir():
                raise BucketNotFound("there is no such folder", uri=self._uri("")) from missing
            raise


def typed(meta: ObjectMeta) -> ObjectMeta:
    """With the content type that the key's ending suggests; what is compressed, is just bytes."""
    content_type, encoding = mimetypes.guess_type(meta.key)
    told = content_type if encoding is None else None
    return meta._replace(content_type=told or "application/octet-stream")
