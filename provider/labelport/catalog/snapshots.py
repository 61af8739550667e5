"""What the ledger says of a snapshot: its files, and the deleted annotations that it is without."""

from __future__ import annotations

from typing import NamedTuple

import sqlalchemy as sa

from labelport.catalog.schema import export_links


class SnapshotFile(NamedTuple):
    """A file that the store has acknowledged, by its rows in the ledger."""

    key: str
    etag: str
    rows: int
    first: int  #: annotation id
    last: int


def files(connection: sa.Connection, storage_id: int, folder: str) -> list[SnapshotFile]:
    """The files in *folder*, which ends with a slash, in order of their annotations' ids.

    They count annotations that were deleted since: those are still in the file.
    """
    columns = export_links.c
    first = sa.func.min(columns.annotation_id)
    rows = connection.execute(
        sa.select(
            columns.key,
            sa.func.max(columns.etag),
            sa.func.count(),
            first,
            sa.func.max(columns.annotation_id),
        )
        .where(columns.storage_id == storage_id, _inside(folder), columns.object_exists)
        .group_by(columns.key)
        .order_by(first)
    )
    return [SnapshotFile(*row) for row in rows]


def absent(
    connection: sa.Connection,
    storage_id: int,
    folder: str,
    *,
    after: int,
    until: int | None,
    limit: int,
) -> list[int]:
    """Up to *limit* deleted annotations, ``after < id <= until``, that are in no file of *folder*.

    Their tombstones say nothing any more once *folder* is the newest snapshot.
    """
    columns = export_links.c
    where = [
        columns.storage_id == storage_id,
        columns.annotation_id > after,
        columns.deleted_at.is_not(None),
        ~_inside(folder),
    ]
    if until is not None:
        where.append(columns.annotation_id <= until)
    query = sa.select(columns.annotation_id).where(*where).order_by(columns.annotation_id)
    return list(connection.scalars(query.limit(limit)))


def _inside(folder: str) -> sa.ColumnElement[bool]:
    """As a range of keys: ``0`` is what follows ``/`` in code-point order."""
    return (export_links.c.key > folder) & (export_links.c.key < folder[:-1] + "0")
