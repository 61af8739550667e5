"""What an export reads: annotations with their tasks and what the ledger knows, in pages."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from itertools import groupby
from typing import Any

import sqlalchemy as sa

from labelport.catalog import bulk, tasks
from labelport.catalog.schema import annotations, export_links
from labelport.catalog.schema import tasks as task_rows
from labelport.model import (
    Annotation,
    ExportFormat,
    ExportUnit,
    LedgerState,
    Storage,
    Task,
)


def bounds(connection: sa.Connection, storage: Storage) -> tuple[int, int] | None:
    """The least and the greatest id that an export of *storage* goes through; None: nothing."""
    column = _unit_id(storage)
    row = connection.execute(
        sa.select(sa.func.min(column), sa.func.max(column)).where(
            annotations.c.project_id == storage.project_id
        )
    ).one()
    return None if row[0] is None else (row[0], row[1])


def page(
    connection: sa.Connection, storage: Storage, *, after: int, until: int | None, limit: int
) -> list[ExportUnit]:
    """Up to *limit* units with ``after < id <= until``, in order of id.

    Ids are of annotations, or of tasks where a task is one object.
    """
    column = _unit_id(storage)
    where = [annotations.c.project_id == storage.project_id, column > after]
    if until is not None:
        where.append(column <= until)
    if storage.export_format is ExportFormat.TASK:
        query = sa.select(column).distinct().where(*where).order_by(column).limit(limit)
        return _task_units(connection, storage, list(connection.scalars(query)))
    # Said of the ledger too, or PostgreSQL reads it from its first row on.
    units = _rows(storage, export_links.c.annotation_id > after).where(*where)
    return [_unit(*row) for row in _read(connection, units.order_by(column).limit(limit))]


def units_of(
    connection: sa.Connection, storage: Storage, annotation_ids: Collection[int]
) -> list[ExportUnit]:
    """The units that hold some annotations; at most a page of ids."""
    mine = [annotations.c.project_id == storage.project_id, annotations.c.id.in_(annotation_ids)]
    if storage.export_format is ExportFormat.TASK:
        query = sa.select(annotations.c.task_id).distinct().where(*mine)
        return _task_units(connection, storage, sorted(connection.scalars(query)))
    units = _rows(storage).where(*mine).order_by(annotations.c.id)
    return [_unit(*row) for row in _read(connection, units)]


def _unit_id(storage: Storage) -> sa.Column[int]:
    name = "task_id" if storage.export_format is ExportFormat.TASK else "id"
    column: sa.Column[int] = annotations.c[name]
    return column


def _rows(storage: Storage, *ledger: sa.ColumnElement[bool]) -> sa.Select[Any]:
    """Annotations, each with its task, the task's link and its row of the ledger.

    One query for all: three, put together in Python, took twice as long.
    """
    links = export_links.c
    mine = sa.and_(links.storage_id == storage.id, links.annotation_id == annotations.c.id, *ledger)
    return sa.select(
        *bulk.columns_of(annotations, Annotation.__struct_fields__),
        *(links[name] for name in LedgerState.__struct_fields__),
        *tasks.COLUMNS,
    ).select_from(
        annotations.join(tasks.WITH_LINKS, task_rows.c.id == annotations.c.task_id).outerjoin(
            export_links, mine
        )
    )


_Row = tuple[Annotation, LedgerState | None, Task]
#: Where a row's parts end.
_ANNOTATION = len(Annotation.__struct_fields__)
_LEDGER = _ANNOTATION + len(LedgerState.__struct_fields__)


def _read(connection: sa.Connection, query: sa.Select[Any]) -> Iterator[_Row]:
    columns = bulk.fetch_columns(connection, query)
    states = zip(*columns[_ANNOTATION:_LEDGER], strict=True)
    return zip(
        map(Annotation, *columns[:_ANNOTATION]),
        (LedgerState(*state) if state[0] is not None else None for state in states),
        tasks.from_columns(columns[_LEDGER:]),
        strict=True,
    )


def _unit(annotation: Annotation, state: LedgerState | None, task: Task) -> ExportUnit:
    return ExportUnit(task, (annotation,), (), {annotation.id: state} if state else {})


def _task_units(
    connection: sa.Connection, storage: Storage, task_ids: Sequence[int]
) -> list[ExportUnit]:
    predicted = defaultdict(list)
    for prediction in tasks.predictions_of(connection, task_ids):
        predicted[prediction.task_id].append(prediction)
    query = _rows(storage).where(annotations.c.task_id.in_(task_ids))
    rows = _read(connection, query.order_by(annotations.c.task_id, annotations.c.id))
    units = []
    for task_id, of_task in groupby(rows, key=lambda row: row[0].task_id):
        annotated, states, (task, *_) = zip(*of_task, strict=True)
        known = zip(annotated, states, strict=True)
        ledger = {annotation.id: state for annotation, state in known if state}
        units.append(ExportUnit(task, annotated, predicted[task_id], ledger))
    return units
