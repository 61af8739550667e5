"""The end of a snapshot: a manifest of its files, and after it the mark that it is whole."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from labelport.catalog import Catalog, runs, shards, snapshots, storages
from labelport.catalog.snapshots import SnapshotFile
from labelport.errors import ObjectChanged, SyncLost
from labelport.model import ShardState, Storage
from labelport.putting import PutLimits, Putter
from labelport.snapshots import folder_of, in_files
from labelport.stores import Store

log = logging.getLogger(__name__)

MANIFEST = "_MANIFEST.json"
SUCCESS = "_SUCCESS"
#: Of the manifest's shape; raised when a reader of the old one would go wrong.
_VERSION = 1

_DEFAULTS = PutLimits()


async def publish(
    catalog: Catalog,
    store: Store,
    storage: Storage,
    run_id: str,
    *,
    limits: PutLimits = _DEFAULTS,
) -> bool:
    """Write the manifest and then ``_SUCCESS``, once all shards of a run are done without errors.

    Call it before the run is finished. Doing so twice writes the same bytes again.

    Returns:
        False when there is nothing to publish: a shard is not done, an annotation failed, or
        *storage* gets no snapshots. `syncing.finish` says which.

    Raises:
        SyncLost: the storage has another run by now, or the ledger is not what the run wrote.
        StoreError: a file is not there as it was written, or the store refuses. No ``_SUCCESS``
            has been written.
    """
    if not in_files(storage):
        return False
    whole = await asyncio.to_thread(_whole, catalog, storage, run_id)
    if whole is None:
        return False
    sizes = [await _size(store, storage, file) for file in whole.files]
    putter = Putter(store, limits)
    await putter.put(whole.folder + MANIFEST, _manifest(storage, run_id, whole, sizes))
    await putter.put(whole.folder + SUCCESS, b"", "text/plain")
    log.info("published %s: %d files", storage.uri(whole.folder), len(whole.files))
    return True


@dataclass(frozen=True)
class _Whole:
    """A snapshot whose files are all written, by the ledger."""

    folder: str
    created_at: datetime | None  #: when its run was queued
    files: Sequence[SnapshotFile]


def _whole(catalog: Catalog, storage: Storage, run_id: str) -> _Whole | None:
    """None: the run has shards that are not done, or errors."""
    with catalog.read() as connection:
        state = storages.state(connection, storage.id)
        folder = folder_of(storage, state, run_id)
        parts = shards.of_run(connection, storage.id, run_id)
        totals = runs.totals(connection, storage.id, run_id)
        files = snapshots.files(connection, storage.id, folder)
    if not parts or any(part.state is not ShardState.DONE for part in parts) or totals.errors:
        return None
    rows = sum(file.rows for file in files)
    if rows != totals.scanned:
        raise SyncLost(
            f"run {run_id} wrote {totals.scanned} annotations and the ledger of {storage.name} has "
            f"{rows} of them: another run has begun, or the ledger was changed by hand"
        )
    return _Whole(folder, state.time_queued, files)


async def _size(store: Store, storage: Storage, file: SnapshotFile) -> int:
    """How many bytes *file* has, if it still is what was written.

    A worker that was taken for dead may have written its own once more.
    """
    meta = await store.head(file.key)
    if meta.etag != file.etag:
        raise ObjectChanged("this is not the file that was written", uri=storage.uri(file.key))
    return meta.size


def _manifest(storage: Storage, run_id: str, whole: _Whole, sizes: Sequence[int]) -> bytes:
    manifest = {
        "version": _VERSION,
        "storage": storage.name,
        "project": storage.project_id,
        "run": run_id,
        "created_at": whole.created_at.isoformat() if whole.created_at else None,
        "format": storage.export_format,
        "rows": sum(file.rows for file in whole.files),
        "bytes": sum(sizes),
        "files": [
            {
                "key": file.key,
                "rows": file.rows,
                "bytes": size,
                "etag": file.etag,
                "first_annotation_id": file.first,
                "last_annotation_id": file.last,
            }
            for file, size in zip(whole.files, sizes, strict=True)
        ],
    }
    return json.dumps(manifest, indent=2).encode()
