"""Writing many objects at once, and believing the store only what it proves."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from labelport.catalog.recording import Outcome
from labelport.errors import InvalidKey, ObjectNotFound, StoreError, StoreUnavailable
from labelport.formats.exported import CONTENT_TYPE, digest, object_body
from labelport.formats.keys import object_key
from labelport.model import ExportUnit, Storage
from labelport.stores import Store


@dataclass(frozen=True)
class PutLimits:
    """What writing may cost.

    The reference writes with ``min(8, cpu × 4)`` threads; here one thread keeps *max_workers*
    requests under way.
    """

    max_workers: int = 64  #: objects written at once
    put_seconds: float = 120.0  #: for one object, with all retries of the store; then it failed
    outage_after: int = 20  #: so many failures in a row stop the sync


class Put(NamedTuple):
    """What became of one object; *outcomes* has a row for each annotation in it."""

    outcomes: Sequence[Outcome] = ()
    written: bool = False
    new: bool = False  #: no annotation in it had been exported before
    unchanged: bool = False  #: its bytes are in the store already


class Putter:
    """Writes and deletes objects, many at once. A failure is an outcome until all of them fail."""

    def __init__(self, store: Store, limits: PutLimits) -> None:
        self._store = store
        self._limits = limits
        self._gate = asyncio.Semaphore(limits.max_workers)
        self._failed_in_a_row = 0
        #: Set once so many failed in a row that it is the store; nothing more is tried then.
        self.outage: StoreError | None = None

    async def put_all(
        self,
        storage: Storage,
        units: Sequence[ExportUnit],
        taken: Mapping[str, Collection[int]],
        *,
        force: bool,
    ) -> list[Put]:
        """Write each unit's object, unless its bytes are there already and not *force*.

        :param taken: the annotations that own a key in the ledger, by key
        """
        owners = {key: set(ids) for key, ids in taken.items()}
        puts = [Put(unchanged=not force and _unchanged(storage, unit)) for unit in units]
        waiting = iter([index for index, put in enumerate(puts) if not put.unchanged])

        async def work() -> None:
            for index in waiting:  # which all workers share
                puts[index] = await self._put_unit(storage, units[index], owners)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(self._limits.max_workers, len(units))):
                group.create_task(work())
        return puts

    async def _put_unit(
        self, storage: Storage, unit: ExportUnit, owners: dict[str, set[int]]
    ) -> Put:
        if self.outage is not None:
            return Put()
        ids = [annotation.id for annotation in unit.annotations]
        known = [unit.ledger.get(number) for number in ids]
        kept = next((state.key for state in known if state), None)
        key = kept or object_key(storage, unit)
        rivals = set() if kept else owners.setdefault(key, set()) - set(ids)
        if rivals:
            taken_by = f"the key belongs to annotation {min(rivals)}; make the key template finer"
            return _failed(unit, key, taken_by)
        if not kept:
            owners[key].update(ids)  # before the first await: two units of a page see each other
        body = object_body(storage, unit)
        found = digest(body)
        etag, error = await self.attempt(key, body)
        if error is not None:
            return _failed(unit, key, error)
        outcomes = [Outcome(number, unit.task.id, key, found, etag) for number in ids]
        new = not any(state and state.object_exists for state in known)
        return Put(outcomes, written=True, new=new)

    async def attempt(
        self, key: str, body: bytes, content_type: str = CONTENT_TYPE
    ) -> tuple[str | None, str | None]:
        """The acknowledged etag, or an error in words, which counts towards an outage."""
        try:
            etag = await self.put(key, body, content_type)
        except StoreError as error:
            return None, self._count(error)
        self._failed_in_a_row = 0
        return etag, None

    async def put(self, key: str, body: bytes, content_type: str = CONTENT_TYPE) -> str:
        """Write one object, see that the store has it, and return its etag."""
        seconds = self._limits.put_seconds
        try:
            async with asyncio.timeout(seconds):
                etag = await self._store.put(key, body, content_type=content_type)
                await self._verify(key, body, etag)
        except TimeoutError as error:
            raise StoreUnavailable(f"no answer within {seconds:g} s") from error
        return etag

    async def _verify(self, key: str, body: bytes, etag: str) -> None:
        """See that the store holds what it acknowledged.

        An etag that is the bytes' MD5 proves it. Others (encryption with a key of one's own, files)
        prove nothing: then the store is asked what it has.
        """
        if etag == hashlib.md5(body, usedforsecurity=False).hexdigest():
            return
        try:
            meta = await self._store.head(key)
        except ObjectNotFound as error:
            raise StoreUnavailable("acknowledged, but not there: the write was lost") from error
        if meta.etag != etag or meta.size != len(body):
            raise StoreUnavailable(
                f"acknowledged, but the store has {meta.size} bytes with etag {meta.etag!r} "
                f"instead of {len(body)} bytes with etag {etag!r}"
            )

    def _count(self, error: StoreError) -> str:
        # A key that cannot be is the annotation's fault, not the store's.
        if not isinstance(error, InvalidKey):
            self._failed_in_a_row += 1
        if self._failed_in_a_row >= self._limits.outage_after:
            self.outage = error
        return f"{type(error).__name__}: {error}"

    async def delete_all(self, keys: Collection[str]) -> dict[str, StoreError]:
        """Delete objects; those that could not be deleted, with the reason."""
        failed: dict[str, StoreError] = {}

        async def delete(key: str) -> None:
            async with self._gate:
                try:
                    async with asyncio.timeout(self._limits.put_seconds):
                        await self._store.delete(key)
                except TimeoutError:
                    failed[key] = StoreUnavailable("no answer to a deletion")
                except StoreError as error:
                    failed[key] = error

        async with asyncio.TaskGroup() as group:
            for key in keys:
                group.create_task(delete(key))
        return failed


def _unchanged(storage: Storage, unit: ExportUnit) -> bool:
    """Whether the store has what would be written, by the ledger."""
    known = unit.ledger.values()
    if len(known) < len(unit.annotations) or not all(state.object_exists for state in known):
        return False
    # The bytes are not kept until they are written: a page of large ones is no small thing.
    found = digest(object_body(storage, unit))
    return all(state.digest == found for state in known)


def _failed(unit: ExportUnit, key: str, error: str) -> Put:
    return Put(
        [
            Outcome(annotation.id, unit.task.id, key, None, None, error)
            for annotation in unit.annotations
        ]
    )
