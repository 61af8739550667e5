"""Deleting tasks and objects together with what hangs on them.

PostgreSQL has no foreign keys here (see `catalog.schema`), so every deletion goes through this.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import sqlalchemy as sa

from labelport.catalog import events, schema
from labelport.catalog.annotations import bury, lock_projects
from labelport.catalog.schema import import_objects, storages, tasks
from labelport.model import ObjectState

_BATCH = 5_000  # ids in one statement; SQLite takes at most 32,766 parameters


def delete_tasks(connection: sa.Connection, task_ids: Iterable[int]) -> int:
    """Delete tasks; how many there were. `catalog.tasks.delete` says what it means."""
    return sum(_delete_batch(connection, ids) for ids in _batches(task_ids))


def drop_import_objects(connection: sa.Connection, storage_id: int, *, delete_tasks: bool) -> int:
    """Forget every object of a storage; its tasks lose their link or are deleted. How many."""
    objects = sa.select(import_objects.c.id).where(import_objects.c.storage_id == storage_id)
    linked = tasks.c.import_object_id.in_(objects)
    if delete_tasks:
        project = sa.select(storages.c.project_id).where(storages.c.id == storage_id)
        events.lock(connection, connection.scalars(project))
        _delete_of_tasks(connection, sa.select(tasks.c.id).where(linked))
        count = connection.execute(tasks.delete().where(linked)).rowcount
    else:
        count = connection.execute(
            tasks.update().where(linked).values(import_object_id=None, row_group=-1, row_index=-1)
        ).rowcount
    connection.execute(import_objects.delete().where(import_objects.c.storage_id == storage_id))
    return count


def _delete_batch(connection: sa.Connection, ids: list[int]) -> int:
    lock_projects(connection, task_ids=ids)
    object_ids = _lock_objects(connection, ids)
    _delete_of_tasks(connection, ids)
    count = connection.execute(tasks.delete().where(tasks.c.id.in_(ids))).rowcount
    orphaned = ~sa.exists().where(tasks.c.import_object_id == import_objects.c.id)
    connection.execute(
        import_objects.delete().where(
            import_objects.c.id.in_(object_ids),
            # An object whose import goes on: whoever reads it counts its rows from the first.
            import_objects.c.state != ObjectState.PARTIAL,
            orphaned,
        )
    )
    return count


def _lock_objects(connection: sa.Connection, task_ids: list[int]) -> list[int]:
    """The objects of these tasks, locked against a batch that adds tasks to them."""
    ids = sa.select(tasks.c.import_object_id).where(tasks.c.id.in_(task_ids))
    query = sa.select(import_objects.c.id).where(import_objects.c.id.in_(ids))
    return list(connection.scalars(query.order_by(import_objects.c.id).with_for_update()))


def _delete_of_tasks(connection: sa.Connection, ids: list[int] | sa.Select[tuple[int]]) -> None:
    bury(connection, schema.annotations.c.task_id.in_(ids))
    connection.execute(schema.predictions.delete().where(schema.predictions.c.task_id.in_(ids)))


def _batches(ids: Iterable[int]) -> Iterator[list[int]]:
    rest = iter(ids)
    while batch := list(islice(rest, _BATCH)):
        yield batch
