"""Can this storage list, read and write what its syncs will ask of it? Answered in words.

An import must find objects: the same ones a sync would look at. An export creates its prefix as
it goes, so that only its bucket must be there.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, Awaitable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from labelport import listing
from labelport.errors import (
    AccessDenied,
    BucketNotFound,
    ConfigurationError,
    InvalidKey,
    LabelportError,
    ObjectChanged,
    ObjectNotFound,
    StoreError,
    StoreUnavailable,
)
from labelport.model import ByteRange, Direction, ObjectMeta, Storage
from labelport.stores import Store

#: How many of a storage's objects are looked at before it counts as one without any.
SAMPLE_OBJECTS = 5_000

_REMEDIES: Sequence[tuple[type[StoreError], str]] = (
    (BucketNotFound, "create the bucket, or correct its name, or the connection's endpoint"),
    (AccessDenied, "check the connection's credentials, and that they allow to {action}"),
    (ObjectNotFound, "it was deleted meanwhile; validate again"),
    (ObjectChanged, "it was written meanwhile; validate again"),
    (InvalidKey, "copy the object to a key without such parts"),
    (StoreUnavailable, "check the connection's endpoint and the network, or try again later"),
)
#: A store that is reached in the wrong way (another region, say) calls it a configuration error.
_REFUSALS = (StoreError, ConfigurationError)


@dataclass(frozen=True)
class Check:
    """One answer: what was tried, what came of it, and if it failed what to do."""

    name: str  #: bucket, objects, read, write or delete
    ok: bool
    detail: str
    remedy: str = ""
    transient: bool = False  #: trying again later may be all it takes

    def __str__(self) -> str:
        verdict = "ok" if self.ok else "failed"
        remedy = f"; {self.remedy}" if self.remedy else ""
        return f"{self.name} {verdict}: {self.detail}{remedy}"


async def validate(store: Store, storage: Storage, *, probe: bool = False) -> list[Check]:
    """Try what the syncs of *storage* will need, up to the first thing that fails.

    :param probe: for an export, also write a small object and delete it again.
    """
    steps = _import_steps(store, storage)
    if storage.direction is Direction.EXPORT:
        steps = _export_steps(store, storage, probe)
    checks: list[Check] = []
    async with aclosing(steps):
        async for check in steps:
            checks.append(check)
            if not check.ok:
                break
    return checks


def require(storage: Storage, checks: Sequence[Check]) -> None:
    """Raise unless all *checks* are good; the message holds each failure with its remedy.

    Raises:
        StoreUnavailable: a failed check may be good the next time.
        ConfigurationError: a person has to do something first.
    """
    failed = [check for check in checks if not check.ok]
    if not failed:
        return
    message = f"storage {storage.name!r}: " + "; ".join(str(check) for check in failed)
    if any(check.transient for check in failed):
        raise StoreUnavailable(message)
    raise ConfigurationError(message)


async def _import_steps(store: Store, storage: Storage) -> AsyncGenerator[Check, None]:
    sample: list[ObjectMeta] = []
    scanned = 0
    try:
        async with aclosing(listing.listed(store, storage)) as units:
            async for unit in units:
                sample.extend(unit.objects)
                scanned += unit.scanned
                if scanned >= SAMPLE_OBJECTS:
                    break
    except _REFUSALS as error:
        yield _failure("bucket", error, f"list {storage.location}")
        return
    yield Check("bucket", True, f"{storage.location} can be listed")
    yield _objects_check(storage, len(sample), scanned)
    yield await _read_check(store, storage, sample)


def _objects_check(storage: Storage, found: int, scanned: int) -> Check:
    place = storage.uri(storage.folder)
    if not scanned:
        return Check("objects", False, f"there is no object under {place}", _empty_remedy(storage))
    if found:
        amount = f"{found:,} of the first {scanned:,} objects under {place} would be imported"
        return Check("objects", True, amount)
    return Check(
        "objects",
        False,
        f"none of the first {scanned:,} objects under {place} would be imported",
        "regex_filter is matched from the start of the whole key, prefix included; "
        "folder markers never count",
    )


def _empty_remedy(storage: Storage) -> str:
    remedies = ["put objects there, or correct the prefix"]
    if storage.prefix:
        remedies.append(f"it is a folder: {storage.prefix!r} covers only keys in {storage.folder}")
    if not storage.recursive_scan:
        remedies.append("turn recursive_scan on to look into the folders below")
    return "; ".join(remedies)


async def _read_check(store: Store, storage: Storage, sample: Sequence[ObjectMeta]) -> Check:
    """Read one byte, which needs the same right as reading all."""
    full = next((meta for meta in sample if meta.size), None)
    if full is None:
        return Check("read", False, "all objects looked at are empty", "put content into them")
    uri = storage.uri(full.key)
    try:
        async with store.open(full.key, ByteRange(0, 1)) as stream:
            async for _ in stream:
                break
    except _REFUSALS as error:
        return _failure("read", error, f"read {uri}")
    return Check("read", True, f"{uri} can be read")


async def _export_steps(store: Store, storage: Storage, probe: bool) -> AsyncGenerator[Check, None]:
    try:
        async for _ in store.pages(storage.folder, page_size=1):
            break
    except _REFUSALS as error:
        yield _failure("bucket", error, f"list {storage.uri('')}")
        return
    yield Check("bucket", True, f"{storage.uri('')} answers")
    if not probe:
        return
    key = f"{storage.folder}.labelport-probe-{uuid.uuid4().hex}"
    yield await _try("write", store.put(key, b"{}"), f"write {storage.uri(key)}")
    yield await _try("delete", store.delete(key), f"delete {storage.uri(key)}")


async def _try(name: str, work: Awaitable[object], action: str) -> Check:
    try:
        await work
    except _REFUSALS as error:
        return _failure(name, error, action)
    return Check(name, True, f"allowed to {action}")


def _failure(name: str, error: LabelportError, action: str) -> Check:
    remedies = (remedy for kind, remedy in _REMEDIES if isinstance(error, kind))
    return Check(
        name,
        False,
        str(error),
        next(remedies, "").format(action=action),
        transient=isinstance(error, StoreUnavailable),
    )
