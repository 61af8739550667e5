"""The outbox: what happened to annotations, written in the transaction where it happened.

Of one project, events commit in order of their ids: a reader that remembers the last id it saw
and asks for what is `after` it meets every event, once. Between projects there is no order.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import sqlalchemy as sa

from labelport.catalog.schema import annotation_events, projects, storages
from labelport.catalog.schema import annotations as annotation_rows
from labelport.errors import NotFound
from labelport.model import AnnotationEvent, Direction, EventKind

_COLUMNS = [annotation_events.c[name] for name in AnnotationEvent._fields]


def lock(connection: sa.Connection, project_ids: Iterable[int]) -> None:
    """Be the only writer of these projects' annotations until the transaction ends.

    Whoever changes annotations takes this lock first, before any row. For several projects take
    it once, for all: they are locked in order of id, so that nobody deadlocks.
    """
    if connection.dialect.name == "sqlite":
        return  # whose one writer we are
    for project_id in sorted(set(project_ids)):
        # Sequences hand out ids before commit, so order needs a lock. Not the project's row:
        # imports change that one, and have no reason to wait.
        name = f"labelport outbox of project {project_id}"
        connection.execute(
            sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(name, 0)))
        )


def record(connection: sa.Connection, kind: EventKind, which: sa.ColumnElement[bool]) -> None:
    """Write an event for each of the annotations *which* holds for, under their project's `lock`.

    Of a deletion, before it: afterwards nobody knows their tasks.
    """
    columns = annotation_rows.c
    happened = (
        sa.select(columns.project_id, columns.task_id, columns.id, sa.literal(str(kind)))
        .where(which)
        .order_by(columns.id)
    )
    names = ["project_id", "task_id", "annotation_id", "kind"]
    connection.execute(annotation_events.insert().from_select(names, happened))


def after(
    connection: sa.Connection, project_id: int, event_id: int, limit: int = 1000
) -> list[AnnotationEvent]:
    """The first *limit* events of a project above *event_id*, in order of id."""
    rows = connection.execute(
        sa.select(*_COLUMNS)
        .where(annotation_events.c.project_id == project_id, annotation_events.c.id > event_id)
        .order_by(annotation_events.c.id)
        .limit(limit)
    )
    return [AnnotationEvent(*row)._replace(kind=EventKind(row.kind)) for row in rows]


def newest(connection: sa.Connection, project_id: int) -> int:
    """The id of a project's latest event; 0 if there is none."""
    query = sa.select(sa.func.max(annotation_events.c.id))
    return connection.scalar(query.where(annotation_events.c.project_id == project_id)) or 0


def newest_of_all(connection: sa.Connection) -> dict[int, int]:
    """The id of each project's latest event by the project's id; 0 where there is none."""
    # One look into the index a project; GROUP BY would read every event.
    latest = (
        sa.select(sa.func.max(annotation_events.c.id))
        .where(annotation_events.c.project_id == projects.c.id)
        .scalar_subquery()
    )
    rows = connection.execute(sa.select(projects.c.id, sa.func.coalesce(latest, 0)))
    return {project_id: event_id for project_id, event_id in rows}


def prune(connection: sa.Connection, before: datetime) -> int:
    """Delete events older than *before* that every export storage has passed; how many.

    A storage that never syncs (not synchronizable) holds nothing back, nor does a project without
    export storages. Other readers lose events if they stand still for longer than *before* says.
    """
    waiting = sa.exists().where(
        storages.c.project_id == annotation_events.c.project_id,
        storages.c.direction == Direction.EXPORT,
        storages.c.synchronizable,
        storages.c.watermark < annotation_events.c.id,
    )
    return connection.execute(
        annotation_events.delete().where(annotation_events.c.created_at < before, ~waiting)
    ).rowcount


def watermark(connection: sa.Connection, storage_id: int) -> int:
    """The last event that an export storage is done with; 0 at first. Raises `NotFound`."""
    event_id: int | None = connection.scalar(
        sa.select(storages.c.watermark).where(storages.c.id == storage_id)
    )
    if event_id is None:
        raise NotFound(f"there is no storage {storage_id}; see: labelport storages list")
    return event_id


def move_watermark(connection: sa.Connection, storage_id: int, event_id: int) -> bool:
    """Note that an export storage is done with every event up to *event_id*.

    It only moves forward; False: it stood there, or further on, already.
    """
    return bool(
        connection.execute(
            storages.update()
            .where(storages.c.id == storage_id, storages.c.watermark < event_id)
            .values(watermark=event_id)
        ).rowcount
    )


def plan(connection: sa.Connection, storage_id: int, event_id: int) -> None:
    """Note the newest event that was there before an export was planned: it covers up to that."""
    connection.execute(
        storages.update().where(storages.c.id == storage_id).values(planned_event=event_id)
    )


def move_watermark_as_planned(connection: sa.Connection, storage_id: int, run_id: str) -> bool:
    """Move the watermark to where the run's plan was; False: it stands there, or further on."""
    return bool(
        connection.execute(
            storages.update()
            .where(
                storages.c.id == storage_id,
                storages.c.run_id == run_id,
                storages.c.watermark < storages.c.planned_event,
            )
            .values(watermark=storages.c.planned_event)
        ).rowcount
    )
