"""What an export writes down: the ledger, and what becomes of it when annotations are deleted.

It says exported only of what a store has acknowledged. What failed keeps its old object, if it
had one, and the error of the latest attempt.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from labelport.catalog import runs, shards
from labelport.catalog.clock import now
from labelport.catalog.database import Catalog
from labelport.catalog.schema import annotations, export_links
from labelport.errors import SyncLost
from labelport.model import Counters, ExportFormat, Shard, Storage

#: How many values one statement may list.
_CHUNK = 5_000


class Outcome(NamedTuple):
    """What became of one annotation in one attempt."""

    annotation_id: int
    task_id: int
    key: str
    digest: str | None  #: of the bytes that the store acknowledged
    etag: str | None
    error: str | None = None  #: None: exported


class LedgerWriter:
    """Writes the ledger of one shard for the owner the shard was taken with."""

    def __init__(
        self, catalog: Catalog, storage: Storage, shard: Shard, *, max_errors: int | None = None
    ) -> None:
        self._catalog = catalog
        self._storage = storage
        self._shard = shard
        self._max_errors = max_errors

    def record(
        self, outcomes: Sequence[Outcome], counters: Counters, checkpoint: str | None
    ) -> None:
        """Write down a page of attempts, and how far the shard has come: all or nothing.

        Raises:
            SyncLost: another worker or run owns the shard; nothing was written.
            TooManyErrors: the page is written, and the run has now more errors than it may.
        """
        with self._catalog.begin() as connection:
            record(connection, self._storage.id, outcomes)
            self._advance(connection, counters, checkpoint)
        runs.check_errors(
            self._catalog, self._storage, self._shard.run_id, counters, self._max_errors
        )

    def forget(self, annotation_ids: Sequence[int], counters: Counters) -> None:
        """Remove the tombstones of objects that are deleted. Raises `SyncLost`."""
        with self._catalog.begin() as connection:
            forget(connection, self._storage.id, annotation_ids)
            self._advance(connection, counters, None)

    def _advance(
        self, connection: sa.Connection, counters: Counters, checkpoint: str | None
    ) -> None:
        if not shards.advance(connection, self._shard, counters, checkpoint):
            raise SyncLost(
                f"run {self._shard.run_id} no longer owns shard {self._shard.index} of storage "
                f"{self._storage.name}"
            )


def record(connection: sa.Connection, storage_id: int, outcomes: Sequence[Outcome]) -> None:
    """Write what became of some annotations; a failure leaves what was exported before.

    An annotation that was deleted while its object was written gets its tombstone here.
    """
    ids = [outcome.annotation_id for outcome in outcomes]
    gone = _gone(connection, ids)  # locks first, in the order that a deletion locks
    exported = [outcome for outcome in outcomes if outcome.error is None]
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    done = ("key", "digest", "etag", "object_exists", "error", "exported_at", "updated_at")
    _upsert(connection, storage_id, exported, done, exported_at=now())
    _upsert(connection, storage_id, failed, ("error", "updated_at"), exported_at=None)
    _bury(connection, storage_id, gone)


def _upsert(
    connection: sa.Connection,
    storage_id: int,
    outcomes: Sequence[Outcome],
    replaced: Sequence[str],
    *,
    exported_at: now | None,
) -> None:
    if not outcomes:
        return
    make = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    statement = make(export_links).values(
        storage_id=storage_id,
        annotation_id=sa.bindparam("annotation_id"),
        task_id=sa.bindparam("task_id"),
        key=sa.bindparam("key"),
        digest=sa.bindparam("digest"),
        etag=sa.bindparam("etag"),
        error=sa.bindparam("error"),
        object_exists=sa.bindparam("object_exists"),
        attempts=1,
        exported_at=exported_at,
    )
    changes = {name: statement.excluded[name] for name in replaced}
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["storage_id", "annotation_id"],
            set_=changes | {"attempts": export_links.c.attempts + 1},
        ),
        [outcome._asdict() | {"object_exists": outcome.error is None} for outcome in outcomes],
    )


def _gone(connection: sa.Connection, annotation_ids: Sequence[int]) -> list[int]:
    """Which of a page's annotations were deleted meanwhile.

    The others are locked until the ledger is written, so that a deletion comes either before,
    and is seen here, or after, and finds the ledger's row.
    """
    alive: set[int] = set()
    for start in range(0, len(annotation_ids), _CHUNK):
        query = (
            sa.select(annotations.c.id)
            .where(annotations.c.id.in_(annotation_ids[start : start + _CHUNK]))
            .order_by(annotations.c.id)
            .with_for_update(read=True, key_share=True)
        )
        alive.update(connection.scalars(query))
    return [number for number in annotation_ids if number not in alive]


def _bury(connection: sa.Connection, storage_id: int, annotation_ids: Sequence[int]) -> None:
    if annotation_ids:
        connection.execute(
            export_links.update()
            .where(_links(storage_id, annotation_ids), export_links.c.deleted_at.is_(None))
            .values(deleted_at=now())
        )


class Tombstone(NamedTuple):
    """An exported annotation that was deleted."""

    annotation_id: int
    key: str
    shared: bool  #: other annotations, not deleted, are in the same object


def tombstones(
    connection: sa.Connection, storage: Storage, *, after: int, until: int | None, limit: int
) -> list[Tombstone]:
    """Deleted annotations whose object exists, in order of their ids.

    ``after < id <= until``, with the same ids as `page`.
    """
    by_task = storage.export_format is ExportFormat.TASK
    column = _LINK.c.task_id if by_task else _LINK.c.annotation_id
    where = [column > after]
    if until is not None:
        where.append(column <= until)
    return _tombstones(connection, storage, sa.and_(*where), limit)


def tombstones_of(
    connection: sa.Connection, storage: Storage, annotation_ids: Collection[int]
) -> list[Tombstone]:
    """Those of some annotations that were deleted and whose object exists."""
    some = _LINK.c.annotation_id.in_(annotation_ids)
    return _tombstones(connection, storage, some, len(annotation_ids))


_LINK, _OTHER = export_links.alias("link"), export_links.alias("other")


def _tombstones(
    connection: sa.Connection, storage: Storage, where: sa.ColumnElement[bool], limit: int
) -> list[Tombstone]:
    shared = sa.exists().where(
        _OTHER.c.storage_id == storage.id,
        _OTHER.c.key == _LINK.c.key,
        _OTHER.c.deleted_at.is_(None),
    )
    query = sa.select(_LINK.c.annotation_id, _LINK.c.key, shared).where(
        _LINK.c.storage_id == storage.id,
        _LINK.c.deleted_at.is_not(None),
        _LINK.c.object_exists,
        where,
    )
    rows = connection.execute(query.order_by(_LINK.c.annotation_id).limit(limit))
    return [Tombstone(row[0], row[1], bool(row[2])) for row in rows]


def forget(connection: sa.Connection, storage_id: int, annotation_ids: Sequence[int]) -> None:
    """Remove the ledger's rows of deleted annotations, once their objects are deleted too."""
    for start in range(0, len(annotation_ids), _CHUNK):
        some = annotation_ids[start : start + _CHUNK]
        connection.execute(
            export_links.delete().where(
                _links(storage_id, some), export_links.c.deleted_at.is_not(None)
            )
        )


def _links(storage_id: int, annotation_ids: Collection[int]) -> sa.ColumnElement[bool]:
    columns = export_links.c
    return (columns.storage_id == storage_id) & columns.annotation_id.in_(annotation_ids)
