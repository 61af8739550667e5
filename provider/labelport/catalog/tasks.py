"""Tasks, with where they came from and what people and models said of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any, NamedTuple, TypeVar

import sqlalchemy as sa

from labelport.catalog import schema
from labelport.catalog.removing import delete_tasks
from labelport.catalog.schema import import_objects, tasks
from labelport.errors import NotFound
from labelport.model import Annotation, Link, Prediction, Task

_T = TypeVar("_T", Annotation, Prediction)

_TASK = [field.name for field in fields(Task) if field.name not in ("data", "meta", "link")]
_LINK = [field.name for field in fields(Link)]


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
    query = _select().where(tasks.c.id > after).order_by(tasks.c.id).limit(limit)
    if project_id is not None:
        query = query.where(tasks.c.project_id == project_id)
    if storage_id is not None:
        query = query.where(import_objects.c.storage_id == storage_id)
    return [_task(row) for row in connection.execute(query)]


def get(connection: sa.Connection, task_id: int) -> TaskDetails:
    """A task with its annotations and predictions. Raises `NotFound`."""
    row = connection.execute(_select().where(tasks.c.id == task_id)).one_or_none()
    if row is None:
        raise NotFound(f"there is no task {task_id}; see: labelport tasks list")
    return TaskDetails(
        _task(row),
        annotations_of(connection, [task_id]),
        predictions_of(connection, [task_id]),
    )


def of_ids(connection: sa.Connection, task_ids: Sequence[int]) -> dict[int, Task]:
    """Some tasks, by id; at most a page of ids. Those that do not exist are left out."""
    rows = connection.execute(_select().where(tasks.c.id.in_(task_ids)))
    return {row.id: _task(row) for row in rows}


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


def _select() -> sa.Select[tuple[object, ...]]:
    """Tasks with their links. JSON as the database's own text: nothing is parsed or rounded."""
    return sa.select(
        *(tasks.c[name] for name in _TASK),
        sa.cast(tasks.c.data, sa.Text).label("data"),
        sa.cast(tasks.c.meta, sa.Text).label("meta"),
        import_objects.c.storage_id,
        import_objects.c.key,
        sa.func.nullif(tasks.c.row_group, -1).label("row_group"),
        sa.func.nullif(tasks.c.row_index, -1).label("row_index"),
        *(import_objects.c[name] for name in ("object_exists", "etag", "size", "mtime")),
    ).select_from(tasks.outerjoin(import_objects, import_objects.c.id == tasks.c.import_object_id))


def _task(row: sa.Row[tuple[object, ...]]) -> Task:
    values = row._mapping
    linked = values["storage_id"] is not None
    return Task(
        **{name: values[name] for name in (*_TASK, "data", "meta")},
        link=Link(**{name: values[name] for name in _LINK}) if linked else None,
    )


def _of_tasks(
    connection: sa.Connection, table: sa.Table, kind: type[_T], task_ids: Sequence[int]
) -> list[_T]:
    query = select_as(table, kind).where(table.c.task_id.in_(task_ids)).order_by(table.c.id)
    return [kind(**row) for row in connection.execute(query).mappings()]


def select_as(table: sa.Table, kind: type[_T]) -> sa.Select[Any]:
    """*table*'s columns in the order of *kind*'s fields, its JSON as text."""
    return sa.select(
        *(
            sa.cast(table.c.result, sa.Text).label("result") if name == "result" else table.c[name]
            for name in kind.__dataclass_fields__
        )
    )
