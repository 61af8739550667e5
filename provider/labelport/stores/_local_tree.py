"""A tree of files read as keys, never leaving the folder it begins in.

Every step from the root on is an ``openat`` that follows no symbolic link, so nobody can swing a
path elsewhere between a check and its use.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from labelport.errors import AccessDenied, InvalidKey, ObjectNotFound
from labelport.model import KeyRange, ObjectMeta

#: How the name of a file begins that is still being written: never listed, never read.
TEMPORARY = ".labelport-"

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def segments(key: str, uri: str) -> list[str]:
    """The folders and the file name that a key stands for.

    Raises:
        InvalidKey: no file can have this key.
    """
    parts = key.split("/")
    if any(p in ("", ".", "..") or "\0" in p or p.startswith(TEMPORARY) for p in parts):
        raise InvalidKey("no file can have this key", uri=uri)
    try:
        os.fsencode(key)
    except UnicodeEncodeError:
        raise InvalidKey("no file can have this key", uri=uri) from None
    return parts


@contextmanager
def folder(root: str, parts: Sequence[str], uri: str, *, create: bool = False) -> Iterator[int]:
    """A descriptor of the folder *parts* below *root*, made if need be.

    Raises:
        ObjectNotFound: it is not there, or a part is a file or a symbolic link.
        AccessDenied: the file system refuses.
    """
    with failures(uri):
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in parts:
                if create:
                    make(part, descriptor)
                below = os.open(part, _FOLDER, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = below
            yield descriptor
        finally:
            os.close(descriptor)


def make(name: str, parent: int) -> None:
    """Make a folder unless something of its name is there."""
    try:
        os.mkdir(name, dir_fd=parent)
    except FileExistsError:
        return


@contextmanager
def failures(uri: str) -> Iterator[None]:
    """The file system's refusals as ours; what is left (a full disk) stays an `OSError`."""
    try:
        yield
    except OSError as failure:
        if failure.errno == errno.ENOENT:
            raise ObjectNotFound("there is no such file", uri=uri) from failure
        if failure.errno in (errno.ENOTDIR, errno.ELOOP):
            raise ObjectNotFound("a part of the key is a file or link", uri=uri) from failure
        if failure.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise AccessDenied(os.strerror(failure.errno), uri=uri) from failure
        if failure.errno == errno.ENAMETOOLONG:
            raise InvalidKey("a part of the key is too long for a file name", uri=uri) from failure
        raise


def meta_of(key: str, status: os.stat_result) -> ObjectMeta:
    """What a file's status says of it; its etag changes with every write."""
    etag = f"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}"
    return ObjectMeta(key, status.st_size, etag, datetime.fromtimestamp(status.st_mtime, UTC))


def walk(
    descriptor: int, base: str, start: str, keys: KeyRange, *, recursive: bool
) -> Iterator[ObjectMeta | str]:
    """The files below an open folder, and its subfolders unless *recursive*, in key order.

    Memory is that of the names in one folder and in those above it.

    :param base: the folder's own key: empty, or with a final slash.
    :param start: what the keys must begin with, at least as long as *base*.
    """
    for name, is_folder in names(descriptor, start[len(base) :]):
        key = base + name
        if keys.until is not None and key > keys.until:
            return
        if not is_folder:
            if key > keys.after and (meta := file_meta(descriptor, name, key)):
                yield meta
        elif key > keys.after or keys.after.startswith(key):
            if not recursive:
                yield key
                continue
            try:
                below = os.open(name[:-1], _FOLDER, dir_fd=descriptor)
            except (FileNotFoundError, NotADirectoryError):
                continue  # removed or replaced since its parent was read
            try:
                yield from walk(below, key, key, keys, recursive=True)
            finally:
                os.close(below)


def names(descriptor: int, beginning: str) -> list[tuple[str, bool]]:
    """What an open folder holds that can be a key, folders with a slash, in key order."""
    found = []
    with os.scandir(descriptor) as entries:
        for entry in entries:
            if entry.name.startswith(TEMPORARY):
                continue
            if entry.is_dir(follow_symlinks=False):
                found.append((entry.name + "/", True))
            elif entry.is_file(follow_symlinks=False):
                found.append((entry.name, False))
    return sorted(item for item in found if item[0].startswith(beginning))


def file_meta(descriptor: int, name: str, key: str) -> ObjectMeta | None:
    """What is known of a file in an open folder; None when it is gone or no file."""
    try:
        status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return meta_of(key, status) if stat.S_ISREG(status.st_mode) else None
