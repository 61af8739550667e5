"""The shards of a run: who owns which key range, and how far each has come."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields

import sqlalchemy as sa

from labelport.catalog.clock import now
from labelport.catalog.schema import sync_shards
from labelport.model import Counters, KeyRange, Shard, ShardState

_COUNTERS = [field.name for field in fields(Counters)]


def create(
    connection: sa.Connection, storage_id: int, run_id: str, ranges: Iterable[KeyRange]
) -> Sequence[Shard]:
    """Write a run's shards and return them; a run that has some keeps those it has."""
    existing = of_run(connection, storage_id, run_id)
    if existing:
        return existing
    rows = [
        {
            "storage_id": storage_id,
            "run_id": run_id,
            "shard": index,
            "key_after": keys.after,
            "key_until": keys.until,
            "checkpoint": keys.after,
        }
        for index, keys in enumerate(ranges)
    ]
    connection.execute(sync_shards.insert(), rows)
    return of_run(connection, storage_id, run_id)


def of_run(connection: sa.Connection, storage_id: int, run_id: str) -> Sequence[Shard]:
    """A run's shards in order."""
    rows = connection.execute(
        sa.select(sync_shards)
        .where(sync_shards.c.storage_id == storage_id, sync_shards.c.run_id == run_id)
        .order_by(sync_shards.c.shard)
    )
    return [_shard(row) for row in rows]


def take(
    connection: sa.Connection,
    storage_id: int,
    run_id: str,
    index: int,
    *,
    owner: str,
    worker: str,
) -> Shard | None:
    """pending | running | failed → running, owned by *owner*; whoever owned it before is fenced.

    A shard that is done comes back as it is. None: the run has no such shard (any more).
    """
    connection.execute(
        sync_shards.update()
        .where(_one(storage_id, run_id, index), sync_shards.c.state != ShardState.DONE)
        .values(state=ShardState.RUNNING, owner=owner, worker=worker, heartbeat=now(), error=None)
    )
    row = connection.execute(
        sa.select(sync_shards).where(_one(storage_id, run_id, index))
    ).one_or_none()
    return _shard(row) if row else None


def beat(connection: sa.Connection, shard: Shard) -> bool:
    """Note that the shard's owner is alive. False: somebody else owns it."""
    return bool(
        connection.execute(
            sync_shards.update().where(owned(shard)).values(heartbeat=now())
        ).rowcount
    )


def release(
    connection: sa.Connection, shard: Shard, state: ShardState, *, error: str | None = None
) -> bool:
    """running → done | failed, by its owner. False: somebody else owns it."""
    return bool(
        connection.execute(
            sync_shards.update().where(owned(shard)).values(state=state, owner=None, error=error)
        ).rowcount
    )


def advance(
    connection: sa.Connection, shard: Shard, counters: Counters, checkpoint: str | None
) -> bool:
    """Add *counters* to the shard's, and move its checkpoint: the fence of every batch.

    False: somebody else owns the shard, and the batch must be rolled back.
    """
    values: dict[str, object] = {
        name: sync_shards.c[name] + getattr(counters, name) for name in _COUNTERS
    }
    if checkpoint is not None:
        values["checkpoint"] = checkpoint
    return bool(
        connection.execute(
            sync_shards.update().where(owned(shard)).values(heartbeat=now(), **values)
        ).rowcount
    )


def failures(connection: sa.Connection, storage_id: int, run_id: str) -> Sequence[str]:
    """What the failed shards of a run said, each once, in order of shard."""
    rows = connection.execute(
        sa.select(sync_shards.c.error)
        .where(
            sync_shards.c.storage_id == storage_id,
            sync_shards.c.run_id == run_id,
            sync_shards.c.error.is_not(None),
        )
        .order_by(sync_shards.c.shard)
    )
    return list(dict.fromkeys(row.error for row in rows))


def workers(connection: sa.Connection, storage_id: int, run_id: str) -> Sequence[str]:
    """``host:pid`` of every worker that owned a shard of the run when it was last heard of."""
    rows = connection.execute(
        sa.select(sync_shards.c.worker)
        .where(
            sync_shards.c.storage_id == storage_id,
            sync_shards.c.run_id == run_id,
            sync_shards.c.state == ShardState.RUNNING,
            sync_shards.c.worker.is_not(None),
        )
        .order_by(sync_shards.c.shard)
    )
    return [row.worker for row in rows]


def owned(shard: Shard) -> sa.ColumnElement[bool]:
    return _one(shard.storage_id, shard.run_id, shard.index) & (sync_shards.c.owner == shard.owner)


def _one(storage_id: int, run_id: str, index: int) -> sa.ColumnElement[bool]:
    columns = sync_shards.c
    return (
        (columns.storage_id == storage_id) & (columns.run_id == run_id) & (columns.shard == index)
    )


def _shard(row: sa.Row[tuple[object, ...]]) -> Shard:
    return Shard(
        storage_id=row.storage_id,
        run_id=row.run_id,
        index=row.shard,
        keys=KeyRange(row.key_after, row.key_until),
        checkpoint=row.checkpoint,
        state=ShardState(row.state),
        owner=row.owner,
        counters=Counters(*(getattr(row, name) for name in _COUNTERS)),
    )
