"""The status of a sync: every transition is one conditional UPDATE, and its row count decides.

``run_id`` is the fence: a run that is no longer the storage's can change nothing. The lease is
judged by the database's clock alone, and only here: reading a status never changes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import NamedTuple

import sqlalchemy as sa

from labelport.catalog.clock import in_seconds, now
from labelport.catalog.database import Catalog
from labelport.catalog.schema import import_errors, storages, sync_shards
from labelport.errors import TooManyErrors
from labelport.model import Counters, Direction, ShardState, Status, Storage

_ACTIVE = [status for status in Status if status.active]


def claim(
    connection: sa.Connection, storage_id: int, *, run_id: str, job: str, lease_seconds: float
) -> bool:
    """Any status but an active one, or an expired lease → queued. One of several claims wins.

    The new run starts with a clean sheet: shards and error rows of earlier runs go, which also
    fences whatever is left of them. True at once for a run that owns the storage already.
    """
    free = storages.c.status.not_in(_ACTIVE) | (storages.c.lease_until < now())
    claimed = connection.execute(
        storages.update()
        .where(storages.c.id == storage_id, free)
        .values(
            status=Status.QUEUED,
            run_id=run_id,
            last_sync_job=job,
            lease_until=in_seconds(lease_seconds),
            traceback=None,
            attempts=storages.c.attempts + 1,
            time_queued=now(),
            time_in_progress=None,
            time_last_ping=None,
            time_completed=None,
            time_failure=None,
        )
    ).rowcount
    if not claimed:
        return _extend(connection, storage_id, run_id, lease_seconds)
    for table in (sync_shards, import_errors):
        connection.execute(table.delete().where(table.c.storage_id == storage_id))
    return True


def _extend(connection: sa.Connection, storage_id: int, run_id: str, seconds: float) -> bool:
    return bool(
        connection.execute(
            storages.update()
            .where(_owned(storage_id, run_id), storages.c.status.in_(_ACTIVE))
            .values(lease_until=_later(seconds))
        ).rowcount
    )


def begin(connection: sa.Connection, storage_id: int, run_id: str, *, lease_seconds: float) -> bool:
    """queued | in_progress → in_progress; also failed → in_progress, when the run's own shard is
    tried again and nobody else has claimed the storage since."""
    startable = [*_ACTIVE, Status.FAILED]
    return bool(
        connection.execute(
            storages.update()
            .where(_owned(storage_id, run_id), storages.c.status.in_(startable))
            .values(
                status=Status.IN_PROGRESS,
                time_in_progress=sa.func.coalesce(storages.c.time_in_progress, now()),
                time_last_ping=now(),
                lease_until=in_seconds(lease_seconds),
                time_failure=None,
                traceback=None,
            )
        ).rowcount
    )


def ping(connection: sa.Connection, storage_id: int, run_id: str, *, lease_seconds: float) -> bool:
    """Renew the lease of a run in progress, never shortening it. False: the run is lost."""
    return bool(
        connection.execute(
            storages.update()
            .where(_owned(storage_id, run_id), storages.c.status == Status.IN_PROGRESS)
            .values(time_last_ping=now(), lease_until=_later(lease_seconds))
        ).rowcount
    )


def end(
    connection: sa.Connection,
    storage_id: int,
    run_id: str,
    status: Status,
    *,
    traceback: str | None = None,
    expired: bool = False,
) -> bool:
    """queued | in_progress → completed | completed_with_errors | failed, with the run's totals.

    With *expired*, only if the lease has run out by the database's clock. A failed run's shards
    lose their owners, so that a worker which is still alive writes nothing more.
    """
    succeeded = status is not Status.FAILED
    mine = [_owned(storage_id, run_id), storages.c.status.in_(_ACTIVE)]
    if expired:
        mine.append(storages.c.lease_until < now())
    ended = connection.execute(
        storages.update()
        .where(*mine)
        .values(
            status=status,
            lease_until=None,
            last_sync=now() if succeeded else storages.c.last_sync,
            last_sync_count=_made(storage_id, run_id),
            traceback=traceback,
            time_completed=now() if succeeded else None,
            time_failure=None if succeeded else now(),
        )
    ).rowcount
    if ended and not succeeded:
        _disown(connection, storage_id, run_id)
    return bool(ended)


def _disown(connection: sa.Connection, storage_id: int, run_id: str) -> None:
    connection.execute(
        sync_shards.update()
        .where(
            sync_shards.c.storage_id == storage_id,
            sync_shards.c.run_id == run_id,
            sync_shards.c.state != ShardState.DONE,
        )
        .values(owner=None, state=ShardState.FAILED)
    )


class ActiveRun(NamedTuple):
    """A run that is queued or in progress, as `syncing.reconcile` judges it."""

    storage_id: int
    name: str
    run_id: str
    job: str
    status: Status
    expired: bool  #: its lease has run out, by the database's clock
    silent_seconds: float | None  #: since the last ping; None: it never pinged


def active(connection: sa.Connection) -> Sequence[ActiveRun]:
    """Every run that owns a storage now."""
    columns = storages.c
    rows = connection.execute(
        sa.select(
            columns.id,
            columns.name,
            columns.run_id,
            columns.last_sync_job,
            columns.status,
            columns.lease_until,
            columns.time_last_ping,
            now().label("at"),
        )
        .where(columns.status.in_(_ACTIVE))
        .order_by(columns.id)
    )
    return [
        ActiveRun(
            row.id,
            row.name,
            row.run_id,
            row.last_sync_job or "",
            Status(row.status),
            row.lease_until < row.at,
            (row.at - row.time_last_ping).total_seconds() if row.time_last_ping else None,
        )
        for row in rows
    ]


def totals(connection: sa.Connection, storage_id: int, run_id: str) -> Counters:
    """The counters of a run: the sum of its shards'."""
    names = [field.name for field in fields(Counters)]
    row = connection.execute(
        sa.select(*(sa.func.coalesce(sa.func.sum(sync_shards.c[name]), 0) for name in names)).where(
            sync_shards.c.storage_id == storage_id, sync_shards.c.run_id == run_id
        )
    ).one()
    return Counters(*(int(value) for value in row))


def check_errors(
    catalog: Catalog, storage: Storage, run_id: str, added: Counters, max_errors: int | None
) -> None:
    """Raise `TooManyErrors` if a run, after it *added* some, has more errors than it may."""
    if max_errors is None or not added.errors:
        return
    with catalog.read() as connection:
        errors = totals(connection, storage.id, run_id).errors
    if errors > max_errors:
        place = "errors" if storage.direction is Direction.IMPORT else "ledger --failed"
        raise TooManyErrors(
            f"{errors} failures are more than max_errors={max_errors}; see "
            f"`labelport {place} {storage.name}`"
        )


def _owned(storage_id: int, run_id: str) -> sa.ColumnElement[bool]:
    return (storages.c.id == storage_id) & (storages.c.run_id == run_id)


def _later(seconds: float) -> sa.ColumnElement[object]:
    """The lease's end, moved out to *seconds* from now unless it is later already."""
    renewed = in_seconds(seconds)
    return sa.case((storages.c.lease_until > renewed, storages.c.lease_until), else_=renewed)


def _made(storage_id: int, run_id: str) -> sa.ScalarSelect[int]:
    """Tasks that an import made, or objects that an export wrote."""
    made = sync_shards.c.created + sa.case(
        (storages.c.direction == Direction.EXPORT, sync_shards.c.updated), else_=0
    )
    return (
        sa.select(sa.func.coalesce(sa.func.sum(made), 0))
        .where(sync_shards.c.storage_id == storage_id, sync_shards.c.run_id == run_id)
        .correlate(storages)
        .scalar_subquery()
    )
