"""All annotations in files of many each: a snapshot. `publishing` says when it is whole.

Each run writes a folder of its own. A file is named after the checkpoint it was begun at, so that
a shard which is tried again overwrites what it had not written down yet, and leaves nothing twice.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from labelport.catalog import Catalog, exports, snapshots, storages
from labelport.catalog.recording import LedgerWriter, Outcome
from labelport.errors import ConfigurationError, SyncLost
from labelport.formats.exported import annotation_body, digest
from labelport.formats.parts import new_part
from labelport.model import (
    Counters,
    Direction,
    ExportFormat,
    ExportUnit,
    Shard,
    Storage,
    SyncState,
)
from labelport.putting import PutLimits, Putter
from labelport.stores import Store

#: Units read at once.
_PAGE = 2_000
#: A file that has grown to so many bytes, before compression, is ended whatever its rows.
_FILE_BYTES = 64 << 20


def in_files(storage: Storage) -> bool:
    """Whether *storage* gets snapshots, and not an object for each annotation or task."""
    return storage.export_format in (ExportFormat.JSONL, ExportFormat.PARQUET)


def check_single(storage: Storage) -> None:
    """Raise `ConfigurationError` where annotations cannot be written or deleted one by one."""
    if in_files(storage):
        raise ConfigurationError(
            f"storage {storage.name} gets snapshots in {storage.export_format} files, which are "
            "whole and never change: sync it, and the next snapshot holds what there is then"
        )


def folder_of(storage: Storage, state: SyncState, run_id: str) -> str:
    """The folder of a run, with its slash: when it was queued, and what tells it from others.

    Raises `SyncLost` when *run_id* is not the storage's latest run.
    """
    queued = state.time_queued
    if state.run_id != run_id or queued is None:
        raise SyncLost(f"run {run_id} does not own storage {storage.name} any more")
    name = hashlib.sha256(f"{run_id} {queued.isoformat()}".encode()).hexdigest()[:8]
    return f"{storage.folder}{queued:%Y%m%dT%H%M%SZ}-{name}/"


class SnapshotShard:
    """The files of one shard: read, written and recorded one at a time."""

    def __init__(
        self,
        catalog: Catalog,
        store: Store,
        storage: Storage,
        shard: Shard,
        *,
        limits: PutLimits,
        max_errors: int | None = None,
    ) -> None:
        self._catalog = catalog
        self._storage = storage
        self._shard = shard
        self._putter = Putter(store, limits)
        self._ledger = LedgerWriter(catalog, storage, shard, max_errors=max_errors)
        self._until = None if shard.keys.until is None else int(shard.keys.until)

    async def steps(self) -> AsyncGenerator[Counters, None]:
        """What each file added to the counters, once it is in the ledger."""
        place = await asyncio.to_thread(self._place)
        after = int(self._shard.checkpoint or 0)
        while file := await asyncio.to_thread(self._next_file, place, after):
            after = file.rows[-1].annotation_id
            yield await self._write(file)
        while gone := await asyncio.to_thread(self._absent, place.folder):
            await asyncio.to_thread(self._ledger.forget, gone, Counters())

    def _place(self) -> _Place:
        with self._catalog.read() as connection:
            state = storages.state(connection, self._storage.id)
            found = storages.list_all(connection, self._storage.project_id)
        imports = {each.id: each for each in found if each.direction is Direction.IMPORT}
        return _Place(folder_of(self._storage, state, self._shard.run_id), imports)

    def _next_file(self, place: _Place, after: int) -> _File | None:
        """The file of the annotations above *after*; None: there are none."""
        part = new_part(self._storage.export_format)
        rows: list[_Row] = []
        last = after
        while len(rows) < self._storage.rows_per_file and part.size < _FILE_BYTES:
            units = self._page(last, min(_PAGE, self._storage.rows_per_file - len(rows)))
            if not units:
                break
            digests = [digest(annotation_body(unit.task, unit.annotations[0])) for unit in units]
            part.add(units, digests, place.imports)
            rows += map(_row, units, digests)
            last = rows[-1].annotation_id
        if not rows:
            return None
        name = f"part-{self._shard.index:05}-{after:010}{part.suffix}"
        return _File(place.folder + name, part.finish(), part.content_type, rows)

    def _page(self, after: int, limit: int) -> list[ExportUnit]:
        with self._catalog.read() as connection:
            return exports.page(
                connection, self._storage, after=after, until=self._until, limit=limit
            )

    async def _write(self, file: _File) -> Counters:
        etag, error = await self._putter.attempt(file.key, file.body, file.content_type)
        count = len(file.rows)
        written = Counters(scanned=count, created=1)
        counters = Counters(scanned=count, errors=count) if error else written
        checkpoint: str | None = f"{file.rows[-1].annotation_id:020d}"
        outage = self._putter.outage
        if outage is not None:  # the shard fails here, and begins here when it is tried again
            counters, checkpoint = Counters(), None
        await asyncio.to_thread(
            self._ledger.record, file.outcomes(etag, error), counters, checkpoint
        )
        if outage is not None:
            raise outage
        return counters

    def _absent(self, folder: str) -> list[int]:
        with self._catalog.read() as connection:
            return snapshots.absent(
                connection,
                self._storage.id,
                folder,
                after=int(self._shard.keys.after or 0),
                until=self._until,
                limit=_PAGE,
            )


class _Place(NamedTuple):
    """Where a run's files go, and where their tasks came from."""

    folder: str  #: ends with a slash
    imports: Mapping[int, Storage]  #: by id


class _Row(NamedTuple):
    """An annotation in a file, as the ledger will know it."""

    annotation_id: int
    task_id: int
    digest: str


@dataclass(frozen=True)
class _File:
    """A file that is made and not written yet. It has a row at least."""

    key: str
    body: bytes
    content_type: str
    rows: Sequence[_Row]

    def outcomes(self, etag: str | None, error: str | None) -> list[Outcome]:
        return [
            Outcome(number, task_id, self.key, None if error else found, etag, error)
            for number, task_id, found in self.rows
        ]


def _row(unit: ExportUnit, found: str) -> _Row:
    return _Row(unit.annotations[0].id, unit.task.id, found)
