"""A whole sync in this process, from claim to end: for a first try, for scripts, for debugging."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Sequence

from labelport import syncing
from labelport.catalog import Catalog
from labelport.errors import ConfigurationError
from labelport.model import Shard, Storage, SyncState
from labelport.stores import Store

log = logging.getLogger(__name__)

#: Opens the store of a storage.
Opener = Callable[[Storage], Store]


def sync_here(
    catalog: Catalog,
    open_store: Opener,
    storage: Storage,
    *,
    job: str,
    plan: Callable[[Store, str], Awaitable[Sequence[Shard]]],
    work: Callable[[Store, str, int], Awaitable[object]],
    close: Callable[[Store, str], Awaitable[object]] | None = None,
) -> SyncState:
    """Claim *storage*, plan its shards, work on them side by side, and end the run.

    What goes wrong meanwhile is in the returned state, as it is for every reader of it.

    :param plan: given the store and the run id, writes the run's shards
    :param work: given the store, the run id and a shard's index, does that shard
    :param close: given the store and the run id, does what is left once all shards are done

    Raises:
        SyncRefused: another run owns the storage.
        ConfigurationError: its connection or a setting cannot be used.
    """
    run_id = f"{job}/{uuid.uuid4().hex}"
    syncing.queue(catalog, storage, run_id=run_id, job=job)
    try:
        asyncio.run(_all_shards(open_store, storage, run_id, plan, work, close))
    except BaseException as error:
        state = syncing.fail(catalog, storage, run_id=run_id, error=error)
        if not isinstance(error, Exception) or isinstance(error, ConfigurationError):
            raise
        log.error("the sync of %s failed: %s", storage.name, error)
        return state
    return syncing.finish(catalog, storage, run_id=run_id)


async def _all_shards(
    open_store: Opener,
    storage: Storage,
    run_id: str,
    plan: Callable[[Store, str], Awaitable[Sequence[Shard]]],
    work: Callable[[Store, str, int], Awaitable[object]],
    close: Callable[[Store, str], Awaitable[object]] | None,
) -> None:
    store = open_store(storage)
    try:
        parts = await plan(store, run_id)
        async with asyncio.TaskGroup() as group:
            for part in parts:
                group.create_task(_awaited(work(store, run_id, part.index)))
        if close is not None:
            await close(store, run_id)
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from errors
    finally:
        await store.close()


async def _awaited(work: Awaitable[object]) -> None:
    await work
