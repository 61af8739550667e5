"""Objects become tasks: list, compare, read, save; a shard at a time, a page at a time.

A page costs one listing request, one range query, a read per new object (none for media) and
one transaction, which also moves the shard's checkpoint. A crash repeats at most a page, and
finds what it had saved of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from labelport import listing, syncing
from labelport.catalog import Catalog, objects
from labelport.catalog import shards as shard_rows
from labelport.catalog.batches import Batch, BatchWriter, Piece
from labelport.comparing import Comparison, Found
from labelport.errors import ConfigurationError
from labelport.formats import media_row
from labelport.inprocess import Opener, sync_here
from labelport.loading import Limits, Loader
from labelport.model import (
    Counters,
    Direction,
    KeyRange,
    ObjectState,
    Shard,
    ShardState,
    Storage,
    SyncState,
)
from labelport.progress import Meter, OnProgress
from labelport.stores import Store

_MEDIA_PAGE = 5_000
_FILES_PAGE = 1_000
#: Known keys that planning takes its quantiles from.
_SAMPLE = 4_096


@dataclass(frozen=True)
class ImportOptions:
    """What one import may do."""

    reimport_changed: bool = False  #: read changed objects again and replace their tasks' data
    max_errors: int | None = None  #: with more error rows than this the sync fails; None: never
    limits: Limits = field(default_factory=Limits)
    ping_seconds: float = syncing.PING_SECONDS
    lease_seconds: float = syncing.LEASE_SECONDS


def import_storage(
    catalog: Catalog,
    open_store: Opener,
    storage: Storage,
    *,
    job: str,
    options: ImportOptions = ImportOptions(),
    shards: int = 1,
    on_progress: OnProgress | None = None,
) -> SyncState:
    """Sync *storage* in this process, from claim to end, and return where it stands.

    What goes wrong while it runs is in the returned state, as it is for every reader of it.

    Raises:
        SyncRefused: another run owns the storage.
        ConfigurationError: it is no import storage, or its connection cannot be used.
    """
    check_importable(storage)
    meter = Meter(on_progress)
    return sync_here(
        catalog,
        open_store,
        storage,
        job=job,
        plan=lambda store, run_id: plan(catalog, store, storage, run_id=run_id, shards=shards),
        work=lambda store, run_id, index: _import_shard(
            catalog, store, storage, run_id, index, options, meter
        ),
    )


def check_importable(storage: Storage) -> None:
    """Raise `ConfigurationError` unless *storage* can be imported from."""
    if storage.direction is not Direction.IMPORT:
        raise ConfigurationError(f"{storage.name} is an {storage.direction} storage")
    if not storage.synchronizable:
        raise ConfigurationError(f"storage {storage.name} is not synchronizable")


async def plan(
    catalog: Catalog, store: Store, storage: Storage, *, run_id: str, shards: int = 1
) -> Sequence[Shard]:
    """Write the run's shards, at most *shards*, each a key range; a retry keeps those it has."""
    check_importable(storage)
    with catalog.read() as connection:
        known = objects.sample(connection, storage.id, _SAMPLE) if shards > 1 else []
    ranges = await listing.split(store, storage, shards, known)
    return await asyncio.to_thread(_write_shards, catalog, storage, run_id, ranges)


def _write_shards(
    catalog: Catalog, storage: Storage, run_id: str, ranges: Sequence[KeyRange]
) -> Sequence[Shard]:
    with catalog.begin() as connection:
        return shard_rows.create(connection, storage.id, run_id, ranges)


async def import_shard(
    catalog: Catalog,
    store: Store,
    storage: Storage,
    *,
    run_id: str,
    index: int,
    options: ImportOptions = ImportOptions(),
    on_progress: OnProgress | None = None,
) -> Counters:
    """Import one key range of a run, from its checkpoint on, and return the shard's counters.

    :param on_progress: called at most once a second, and once at the end

    Raises:
        SyncLost: the run lost its storage, or another worker took the shard.
        TooManyErrors: see `ImportOptions.max_errors`; what was saved stays.
        StoreError: the store cannot be listed, or refuses object after object.
    """
    return await _import_shard(catalog, store, storage, run_id, index, options, Meter(on_progress))


async def _import_shard(
    catalog: Catalog,
    store: Store,
    storage: Storage,
    run_id: str,
    index: int,
    options: ImportOptions,
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
        writer = BatchWriter(catalog, storage, shard, max_errors=options.max_errors)
        counters = shard.counters
        batches = _ahead(_batches(catalog, store, storage, shard, options))
        async with aclosing(batches):
            async for batch in batches:
                added = await asyncio.to_thread(writer.save, batch)
                counters += added
                meter.add(added)
        meter.report()
        return counters


async def _ahead(batches: AsyncGenerator[Batch, None]) -> AsyncGenerator[Batch, None]:
    """Prepare the next batch while the one before is saved."""
    async with aclosing(batches) as source:
        coming = asyncio.ensure_future(anext(source, None))
        try:
            while (batch := await coming) is not None:
                coming = asyncio.ensure_future(anext(source, None))
                yield batch
        finally:
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)


async def _batches(
    catalog: Catalog, store: Store, storage: Storage, shard: Shard, options: ImportOptions
) -> AsyncGenerator[Batch, None]:
    """The batches of one shard, in order, from its checkpoint on."""
    media = storage.use_blob_urls
    comparison = Comparison(catalog, storage, shard, reimport_changed=options.reimport_changed)
    loader = Loader(store, options.limits)
    units = listing.listed(
        store,
        storage,
        KeyRange(shard.checkpoint, shard.keys.until),
        at_least=_MEDIA_PAGE if media else _FILES_PAGE,
    )
    async with aclosing(units):
        async for unit in units:
            found = await asyncio.to_thread(comparison.compare, unit)
            if media:
                yield _media_batch(storage, found)
            else:
                async for batch in loader.batches(found):
                    yield batch
    yield await asyncio.to_thread(comparison.rest)


def _media_batch(storage: Storage, found: Found) -> Batch:
    """Each object is a task that holds its URI: nothing is read."""
    found.batch.media = found.new
    found.batch.pieces = [
        Piece(target, ObjectState.DONE, (media_row(storage.uri(target.meta.key)),), 0)
        for target, _ in found.again
    ]
    return found.batch
