"""Tasks, with where they came from and what people and models said of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import sqlalchemy as sa

from labelport.catalog import bulk, schema
from labelport.catalog.removing import delete_tasks
from labelport.catalog.schema import import_objects, tasks
from labelport.errors import NotFound
from labelport.model import Annotation, Link, Prediction, Task

_T = TypeVar("_T", Annotation, Prediction)

_OWN = Task.__struct_fields__[:-1]  # all but the link


class TaskDetails(NamedTuple):
    """A task with all that belongs to it, each in order of id."""

    task: Task
    annotations: list[Annotation]
    predictions: list[Prediction]


def page(
    connection: sa.Connection,
    *,
    project_id: int | None = None,
    storage_id: int | None = None,
    after: int = 0,
    limit: int = 100,
) -> list[Task]:
    """Up to *limit* tasks with an id above *after*, in order of id.

    The id of the last one is the *after* of the next page; a short page is the last.
    """
    query = sa.select(*COLUMNS).select_from(WITH_LINKS)
    query = query.where(tasks.c.id > after).order_by(tasks.c.id).limit(limit)
    if project_id is not None:
        query = query.where(tasks.c.project_id == project_id)
    if storage_id is not None:
        query = query.where(import_objects.c.storage_id == storage_id)
    return list(from_columns(bulk.fetch_columns(connection, query)))


def get(connection: sa.Connection, task_id: int) -> TaskDetails:
    """A task with its annotations and predictions. Raises `NotFound`."""
    query = sa.select(*COLUMNS).select_from(WITH_LINKS).where(tasks.c.id == task_id)
    found = list(from_columns(bulk.fetch_columns(connection, query)))
    if not found:
        raise NotFound(f"there is no task {task_id}; see: labelport tasks list")
    return TaskDetails(
        found[0],
        annotations_of(connection, [task_id]),
        predictions_of(connection, [task_id]),
    )


def projects_of(connection: sa.Connection, task_ids: Sequence[int]) -> dict[int, int]:
    """The project's id by the task's id, of those that exist; at most a page of task ids."""
    query = sa.select(tasks.c.id, tasks.c.project_id).where(tasks.c.id.in_(task_ids))
    return {row[0]: row[1] for row in connection.execute(query)}


def annotations_of(connection: sa.Connection, task_ids: Sequence[int]) -> list[Annotation]:
    """The annotations of some tasks, in order of their own ids; at most a page of task ids."""
    return _of_tasks(connection, schema.annotations, Annotation, task_ids)


def predictions_of(connection: sa.Connection, task_ids: Sequence[int]) -> list[Prediction]:
    """The predictions of some tasks, in order of their own ids; at most a page of task ids."""
    return _of_tasks(connection, schema.predictions, Prediction, task_ids)


def delete(connection: sa.Connection, task_ids: Iterable[int]) -> int:
    """Delete tasks with their annotations and predictions; how many there were.

    An object that loses its last task is forgotten, so that a sync brings it back. One that
    loses only some of its rows, or is being imported just now, stays known: those rows do not
    come back.
    """
    return delete_tasks(connection, task_ids)


def from_columns(columns: Sequence[Iterable[Any]]) -> Iterator[Task]:
    """The tasks that rows of `COLUMNS` are."""
    own, link = columns[: len(_OWN)], columns[len(_OWN) :]
    links = (Link(*row) if row[0] is not None else None for row in zip(*link, strict=True))
    return map(Task, *own, links)


def _of_tasks(
    connection: sa.Connection, table: sa.Table, kind: type[_T], task_ids: Sequence[int]
) -> list[_T]:
    query = sa.select(*bulk.columns_of(table, kind.__struct_fields__))
    found = query.where(table.c.task_id.in_(task_ids)).order_by(table.c.id)
    return list(map(kind, *bulk.fetch_columns(connection, found)))


#: What `from_columns` takes, out of `WITH_LINKS`.
COLUMNS: Sequence[sa.ColumnElement[Any]] = (
    *bulk.columns_of(tasks, _OWN),
    import_objects.c.storage_id,
    import_objects.c.key,
    sa.func.nullif(tasks.c.row_group, -1),
    sa.func.nullif(tasks.c.row_index, -1),
    *(import_objects.c[name] for name in ("object_exists", "etag", "size", "mtime")),
)
#: Tasks with the objects that brought them.
WITH_LINKS = tasks.outerjoin(import_objects, import_objects.c.id == tasks.c.import_object_id)
