"""What somebody who looked before has not seen yet: events, storages behind them, the last key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import sqlalchemy as sa

from labelport.catalog.schema import annotation_events, import_objects, storages
from labelport.model import Direction, EventKind, ExportFormat


class News(NamedTuple):
    """What happened to a project's annotations since an event, in numbers."""

    first: int  #: id of the first event since
    last: int  #: id of the latest
    created: int
    updated: int
    deleted: int


def since(connection: sa.Connection, project_id: int, event_id: int) -> News | None:
    """What happened in a project after *event_id*; None: nothing."""
    columns = annotation_events.c
    kinds = (
        sa.func.count(sa.case((columns.kind == kind, 1)))
        for kind in (EventKind.CREATED, EventKind.UPDATED, EventKind.DELETED)
    )
    row = connection.execute(
        sa.select(sa.func.min(columns.id), sa.func.max(columns.id), *kinds).where(
            columns.project_id == project_id, columns.id > event_id
        )
    ).one()
    return None if row[0] is None else News(*row)


def behind(connection: sa.Connection) -> Sequence[str]:
    """The export storages, by name, whose project has events beyond their watermark.

    Without those that get snapshots, which are whole and never change.
    """
    newer = sa.exists().where(
        annotation_events.c.project_id == storages.c.project_id,
        annotation_events.c.id > storages.c.watermark,
    )
    query = sa.select(storages.c.name).where(
        storages.c.direction == Direction.EXPORT,
        storages.c.synchronizable,
        storages.c.export_format.in_((ExportFormat.ANNOTATION, ExportFormat.TASK)),
        newer,
    )
    return connection.scalars(query.order_by(storages.c.id)).all()


def last_key(connection: sa.Connection, storage_id: int) -> str:
    """The greatest key that any sync of a storage has met; empty: none was met."""
    query = sa.select(sa.func.max(import_objects.c.key))
    return connection.scalar(query.where(import_objects.c.storage_id == storage_id)) or ""
