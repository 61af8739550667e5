"""What the proxy asks before it serves an object: whose task, and which storage's media."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import sqlalchemy as sa

from labelport.catalog import bulk
from labelport.catalog.schema import import_objects
from labelport.catalog.schema import tasks as rows
from labelport.catalog.tasks import WITH_LINKS


class TaskAccess(NamedTuple):
    """What decides about a URI in a task."""

    task_id: int
    project_id: int
    data: str  #: JSON text
    link_storage_id: int | None  #: None: no storage brought it, or that storage was removed


def tasks(connection: sa.Connection, task_ids: Collection[int]) -> dict[int, TaskAccess]:
    """Some tasks, with the storages that brought them, by id; at most a page of ids."""
    found = bulk.fetch(connection, _TASKS, {"ids": [*task_ids]})
    return {row[0]: TaskAccess(*row) for row in found}


def task(connection: sa.Connection, task_id: int) -> TaskAccess | None:
    """A task, with the storage that brought it."""
    return tasks(connection, [task_id]).get(task_id)


def is_a_task(connection: sa.Connection, storage_id: int, key: str) -> bool:
    """Whether the object *key* of a storage became a task, and exists as of its last sync."""
    made = sa.exists().where(rows.c.import_object_id == import_objects.c.id)
    query = sa.select(import_objects.c.id).where(
        import_objects.c.storage_id == storage_id,
        import_objects.c.key == key,
        import_objects.c.object_exists,
        made,
    )
    return connection.scalar(query) is not None


#: Made once: putting it together takes as long as asking it.
_TASKS = (
    sa.select(
        *bulk.columns_of(rows, ("id", "project_id", "data")),
        import_objects.c.storage_id,
    )
    .select_from(WITH_LINKS)
    .where(rows.c.id.in_(sa.bindparam("ids", expanding=True)))
)
