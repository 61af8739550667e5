"""What the proxy asks before it serves an object: whose task, and which storage's media."""

from __future__ import annotations

from typing import NamedTuple

import sqlalchemy as sa

from labelport.catalog import bulk
from labelport.catalog.schema import import_objects, tasks


class TaskAccess(NamedTuple):
    """What decides about a URI in a task."""

    task_id: int
    project_id: int
    data: str  #: JSON text
    link_storage_id: int | None  #: None: no storage brought it, or that storage was removed
    link_key: str | None


def task(connection: sa.Connection, task_id: int) -> TaskAccess | None:
    """A task, with the object that brought it."""
    query = (
        sa.select(
            *bulk.columns_of(tasks, ("id", "project_id", "data")),
            import_objects.c.storage_id,
            import_objects.c.key,
        )
        .select_from(tasks)
        .outerjoin(import_objects, import_objects.c.id == tasks.c.import_object_id)
        .where(tasks.c.id == task_id)
    )
    row = connection.execute(query).one_or_none()
    return TaskAccess._make(row) if row else None


def is_a_task(connection: sa.Connection, storage_id: int, key: str) -> bool:
    """Whether the object *key* of a storage became a task, and exists as of its last sync."""
    made = sa.exists().where(tasks.c.import_object_id == import_objects.c.id)
    query = sa.select(import_objects.c.id).where(
        import_objects.c.storage_id == storage_id,
        import_objects.c.key == key,
        import_objects.c.object_exists,
        made,
    )
    return connection.scalar(query) is not None
