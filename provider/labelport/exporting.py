"""Annotations become objects, and a ledger says which: read, write, record; a page at a time.

A page costs a few queries, a put per object whose bytes are not in the store already, and one
transaction that writes the ledger and moves the shard's checkpoint. A crash repeats at most a
page: the same bytes to the same keys.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from labelport import snapshots, syncing
from labelport.catalog import Catalog, events, export_keys, exports, recording
from labelport.catalog import shards as shard_rows
from labelport.catalog.recording import LedgerWriter, Outcome, Tombstone
from labelport.errors import ConfigurationError
from labelport.formats.keys import object_key
from labelport.inprocess import Opener, sync_here
from labelport.model import (
    Counters,
    Direction,
    ExportFormat,
    ExportUnit,
    KeyRange,
    Shard,
    ShardState,
    Status,
    Storage,
    SyncState,
)
from labelport.progress import Meter, OnProgress
from labelport.publishing import publish
from labelport.putting import PutLimits, Putter
from labelport.stores import Store

#: How long events stay in the outbox after every export storage has passed them.
_KEEP_EVENTS = timedelta(days=7)
#: Units read, written and recorded at once.
_PAGE = 2_000
#: Ids are the keys of an export's shards: written so that their order as text is their order.
_ID = "{:020d}"


class Selection(StrEnum):
    """Which annotations an export writes. Deleted ones are taken care of by each.

    A snapshot (`snapshots`) is whole, whatever is selected.
    """

    ALL = "all"  #: every one, whether its bytes are in the store already or not
    NEW = "new"  #: those that were never exported, or whose export failed
    CHANGED = "changed"  #: those too, and those whose bytes would differ
    DELETED = "deleted"  #: none: only the objects of deleted annotations


@dataclass(frozen=True)
class ExportOptions:
    """What one export may do."""

    select: Selection = Selection.CHANGED
    max_errors: int | None = None  #: with more failed annotations than this it stops; None: never
    limits: PutLimits = field(default_factory=PutLimits)
    ping_seconds: float = syncing.PING_SECONDS
    lease_seconds: float = syncing.LEASE_SECONDS


_DEFAULTS = ExportOptions()


def export_storage(
    catalog: Catalog,
    open_store: Opener,
    storage: Storage,
    *,
    job: str,
    options: ExportOptions = _DEFAULTS,
    shards: int = 1,
    on_progress: OnProgress | None = None,
) -> SyncState:
    """Export to *storage* in this process, from claim to end, and return where it stands.

    What goes wrong while it runs is in the returned state, and in the ledger.

    Raises:
        SyncRefused: another run owns the storage.
        ConfigurationError: it is no export storage, its connection cannot be used, or two
            annotations would have one key.
    """
    check_exportable(storage)
    meter = Meter(on_progress)
    state = sync_here(
        catalog,
        open_store,
        storage,
        job=job,
        plan=lambda _, run_id: plan_export(catalog, storage, run_id=run_id, shards=shards),
        work=lambda store, run_id, index: _export_shard(
            catalog, store, storage, run_id, index, options, meter
        ),
        close=lambda store, run_id: publish(catalog, store, storage, run_id, limits=options.limits),
    )
    done_with_events(catalog, storage, state, options.select)
    return state


def done_with_events(
    catalog: Catalog, storage: Storage, state: SyncState, select: Selection
) -> None:
    """Move the watermark to where a run's plan was, if the run exported all there was to export.

    Old events that every export storage has passed go.
    """
    whole = state.status is Status.COMPLETED and select in (Selection.ALL, Selection.CHANGED)
    if not whole or state.run_id is None:
        return
    with catalog.begin() as connection:
        events.move_watermark_as_planned(connection, storage.id, state.run_id)
        events.prune(connection, datetime.now(UTC) - _KEEP_EVENTS)


def check_exportable(storage: Storage) -> None:
    """Raise `ConfigurationError` unless *storage* can be exported to."""
    if storage.direction is not Direction.EXPORT:
        raise ConfigurationError(f"{storage.name} is an {storage.direction} storage")
    if not storage.synchronizable:
        raise ConfigurationError(f"storage {storage.name} is not synchronizable")


async def plan_export(
    catalog: Catalog, storage: Storage, *, run_id: str, shards: int = 1
) -> Sequence[Shard]:
    """Write the run's shards, at most *shards*, each a range of ids; a retry keeps those it has.

    With a key template, every key is worked out first.

    Raises:
        ConfigurationError: two annotations (or tasks) would have one key. Nothing is written.
    """
    check_exportable(storage)
    return await asyncio.to_thread(_plan, catalog, storage, run_id, shards)


def _plan(catalog: Catalog, storage: Storage, run_id: str, shards: int) -> Sequence[Shard]:
    with catalog.read() as connection:
        newest = events.newest(connection, storage.project_id)
    if storage.key_template:
        _plan_keys(catalog, storage)
    with catalog.begin() as connection:
        if not shard_rows.of_run(connection, storage.id, run_id):
            events.plan(connection, storage.id, newest)
        ranges = _ranges(exports.bounds(connection, storage), shards)
        return shard_rows.create(connection, storage.id, run_id, ranges)


def _plan_keys(catalog: Catalog, storage: Storage) -> None:
    """Give every annotation its key in the ledger, and see that none is given twice.

    An annotation keeps the key that it was exported to, whatever changes in it later.
    """
    with catalog.begin() as connection:
        after = 0
        while units := exports.page(connection, storage, after=after, until=None, limit=_PAGE):
            planned = [(unit, object_key(storage, unit)) for unit in units]
            export_keys.plan_keys(connection, storage, planned)
            after = _unit_id(storage, units[-1])
        twice = export_keys.collision(connection, storage)
        if twice is not None:
            raise ConfigurationError(
                f"annotations {twice.first} and {twice.second} would both be written to "
                f"{storage.uri(twice.key)}: put {{annotation_id}}, {{task_id}} or {{annotator}} "
                f"into the key template {storage.key_template!r}"
            )


def _ranges(bounds: tuple[int, int] | None, shards: int) -> list[KeyRange]:
    """Equal parts of the ids; the last one is open, for annotations made meanwhile."""
    if bounds is None or shards <= 1:
        return [KeyRange()]
    first, last = bounds
    size = max(1, -(-(last - first + 1) // shards))
    cuts = [_ID.format(cut) for cut in range(first + size - 1, last, size)]
    return [KeyRange(after, until) for after, until in zip(["", *cuts], [*cuts, None], strict=True)]


async def export_shard(
    catalog: Catalog,
    store: Store,
    storage: Storage,
    *,
    run_id: str,
    index: int,
    options: ExportOptions = _DEFAULTS,
    on_progress: OnProgress | None = None,
) -> Counters:
    """Export one range of ids of a run, from its checkpoint on, and return the shard's counters.

    :param on_progress: called at most once a second, and once at the end

    Raises:
        SyncLost: the run lost its storage, or another worker took the shard.
        TooManyErrors: see `ExportOptions.max_errors`; what was written stays.
        StoreError: the store refuses object after object. The ledger holds what was tried.
    """
    return await _export_shard(catalog, store, storage, run_id, index, options, Meter(on_progress))


async def _export_shard(
    catalog: Catalog,
    store: Store,
    storage: Storage,
    run_id: str,
    index: int,
    options: ExportOptions,
    meter: Meter,
) -> Counters:
    with syncing.hold_shard(
        catalog,
        storage,
        run_id=run_id,
        index=index,
        ping_seconds=options.ping_seconds,
        lease_seconds=options.lease_seconds,
    ) as shard:
        if shard.state is ShardState.DONE:
            return shard.counters
        meter.start(shard.counters)
        counters = shard.counters
        async with aclosing(_steps(catalog, store, storage, shard, options)) as steps:
            async for added in steps:
                counters += added
                meter.add(added)
        meter.report()
        return counters


def _steps(
    catalog: Catalog, store: Store, storage: Storage, shard: Shard, options: ExportOptions
) -> AsyncGenerator[Counters, None]:
    if not snapshots.in_files(storage):
        return _ShardExport(catalog, store, storage, shard, options).steps()
    if options.select is Selection.DELETED:
        snapshots.check_single(storage)
    return snapshots.SnapshotShard(
        catalog, store, storage, shard, limits=options.limits, max_errors=options.max_errors
    ).steps()


class _ShardExport:
    """The pages of one shard: what has to be written, what became of it, what was deleted."""

    def __init__(
        self, catalog: Catalog, store: Store, storage: Storage, shard: Shard, options: ExportOptions
    ) -> None:
        self._catalog = catalog
        self._storage = storage
        self._options = options
        self._putter = Putter(store, options.limits)
        self._ledger = LedgerWriter(catalog, storage, shard, max_errors=options.max_errors)
        self._shard = shard
        self._until = None if shard.keys.until is None else int(shard.keys.until)

    async def steps(self) -> AsyncGenerator[Counters, None]:
        """What each page added to the counters, once it is in the ledger."""
        if self._options.select is not Selection.DELETED:
            async with aclosing(self._pages()) as pages:
                async for units in pages:
                    checkpoint = _ID.format(_unit_id(self._storage, units[-1]))
                    yield await self._export_page(units, checkpoint)
        if self._storage.can_delete_objects:
            while graves := await asyncio.to_thread(self._graves):
                yield await self._delete_page(graves)

    async def _pages(self) -> AsyncGenerator[list[ExportUnit], None]:
        """The shard's units from its checkpoint on; the next page is read while one is written."""
        after = int(self._shard.checkpoint or 0)
        coming = asyncio.create_task(asyncio.to_thread(self._page, after))
        try:
            while units := await coming:
                after = _unit_id(self._storage, units[-1])
                coming = asyncio.create_task(asyncio.to_thread(self._page, after))
                yield units
        finally:
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)

    def _page(self, after: int) -> list[ExportUnit]:
        with self._catalog.read() as connection:
            return exports.page(
                connection, self._storage, after=after, until=self._until, limit=_PAGE
            )

    async def _export_page(self, units: Sequence[ExportUnit], checkpoint: str) -> Counters:
        wanted = [unit for unit in units if not self._skipped(unit)]
        taken = await asyncio.to_thread(self._taken, wanted)
        force = self._options.select is Selection.ALL
        puts = await self._putter.put_all(self._storage, wanted, taken, force=force)
        outcomes = [outcome for put in puts for outcome in put.outcomes]
        counters = Counters(
            scanned=len(units),
            created=sum(put.written and put.new for put in puts),
            updated=sum(put.written and not put.new for put in puts),
            existed=len(units) - len(wanted) + sum(put.unchanged for put in puts),
            errors=sum(outcome.error is not None for outcome in outcomes),
        )
        stopped = self._putter.outage
        await asyncio.to_thread(
            self._ledger.record, outcomes, counters, None if stopped else checkpoint
        )
        if stopped is not None:
            raise stopped
        return counters

    def _skipped(self, unit: ExportUnit) -> bool:
        """Exported once, when only new ones are wanted."""
        if self._options.select is not Selection.NEW:
            return False
        known = [unit.ledger.get(annotation.id) for annotation in unit.annotations]
        return all(state is not None and state.object_exists for state in known)

    def _taken(self, units: Sequence[ExportUnit]) -> dict[str, set[int]]:
        """Whose keys these are, where a template might give one twice."""
        if not self._storage.key_template or not units:
            return {}
        keys = [object_key(self._storage, unit) for unit in units if not unit.ledger]
        with self._catalog.read() as connection:
            return export_keys.owners(connection, self._storage, keys)

    def _graves(self) -> list[Tombstone]:
        after = int(self._shard.keys.after or 0)
        with self._catalog.read() as connection:
            return recording.tombstones(
                connection, self._storage, after=after, until=self._until, limit=_PAGE
            )

    async def _delete_page(self, graves: Sequence[Tombstone]) -> Counters:
        keys = {grave.key for grave in graves if not grave.shared}
        failed = await self._putter.delete_all(keys)
        gone = [grave.annotation_id for grave in graves if grave.key not in failed]
        counters = Counters(missing=len(keys) - len(failed), errors=len(failed))
        await asyncio.to_thread(self._ledger.forget, gone, counters)
        if failed:
            raise next(iter(failed.values()))
        return counters


def _unit_id(storage: Storage, unit: ExportUnit) -> int:
    return unit.task.id if storage.export_format is ExportFormat.TASK else unit.annotations[0].id


async def export_annotations(
    catalog: Catalog,
    store: Store,
    storage: Storage,
    annotation_ids: Collection[int],
    *,
    limits: PutLimits | None = None,
) -> list[Outcome]:
    """Export some annotations now, outside of any run, and write the ledger. What came of each.

    For a few: a page of ids at most. A sync that runs at the same time writes the same bytes.
    """
    check_exportable(storage)
    snapshots.check_single(storage)

    def units() -> tuple[list[ExportUnit], dict[str, set[int]]]:
        with catalog.read() as connection:
            found = exports.units_of(connection, storage, annotation_ids)
            keys = [object_key(storage, unit) for unit in found if not unit.ledger]
            return found, export_keys.owners(connection, storage, keys)

    found, taken = await asyncio.to_thread(units)
    puts = await Putter(store, limits or PutLimits()).put_all(storage, found, taken, force=True)
    outcomes = [outcome for put in puts for outcome in put.outcomes]

    def record() -> None:
        with catalog.begin() as connection:
            recording.record(connection, storage.id, outcomes)

    await asyncio.to_thread(record)
    return outcomes


async def delete_exported(
    catalog: Catalog, store: Store, storage: Storage, annotation_ids: Collection[int]
) -> int:
    """Delete the objects of some deleted annotations now, outside of any run. How many.

    Those that the catalog still has keep their objects. Raises `ConfigurationError` when the
    storage may not delete, `StoreError` when the store refuses.
    """
    snapshots.check_single(storage)
    if not storage.can_delete_objects:
        raise ConfigurationError(
            f"storage {storage.name} may not delete objects; allow it with can_delete_objects"
        )

    def graves() -> list[Tombstone]:
        with catalog.read() as connection:
            return recording.tombstones_of(connection, storage, annotation_ids)

    found = await asyncio.to_thread(graves)
    keys = {grave.key for grave in found if not grave.shared}
    failed = await Putter(store, PutLimits()).delete_all(keys)
    gone = [grave.annotation_id for grave in found if grave.key not in failed]

    def forget() -> None:
        with catalog.begin() as connection:
            recording.forget(connection, storage.id, gone)

    await asyncio.to_thread(forget)
    if failed:
        raise next(iter(failed.values()))
    return len(keys)
