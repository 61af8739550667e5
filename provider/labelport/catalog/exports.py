"""What an export reads: annotations with their tasks and what the ledger knows, in pages."""

from collections import defaultdict
from collections.abc import Collection, Sequence

import sqlalchemy as sa

from labelport.catalog import bulk, tasks
from labelport.catalog.schema import annotations, export_links
from labelport.model import (
    Annotation,
    ExportFormat,
    ExportUnit,
    LedgerState,
    Storage,
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
    select = tasks.select_as(annotations, Annotation).where(*where).order_by(column).limit(limit)
    return _annotation_units(
        connection, storage, [Annotation(*row) for row in connection.execute(select)]
    )


def units_of(
    connection: sa.Connection, storage: Storage, annotation_ids: Collection[int]
) -> list[ExportUnit]:
    """The units that hold some annotations; at most a page of ids."""
    mine = [annotations.c.project_id == storage.project_id, annotations.c.id.in_(annotation_ids)]
    if storage.export_format is ExportFormat.TASK:
        query = sa.select(annotations.c.task_id).distinct().where(*mine)
        return _task_units(connection, storage, sorted(connection.scalars(query)))
    select = tasks.select_as(annotations, Annotation).where(*mine).order_by(annotations.c.id)
    return _annotation_units(
        connection, storage, [Annotation(*row) for row in connection.execute(select)]
    )


def _unit_id(storage: Storage) -> sa.Column[int]:
    name = "task_id" if storage.export_format is ExportFormat.TASK else "id"
    column: sa.Column[int] = annotations.c[name]
    return column


def _annotation_units(
    connection: sa.Connection, storage: Storage, found: Sequence[Annotation]
) -> list[ExportUnit]:
    of = tasks.of_ids(connection, list({annotation.task_id for annotation in found}))
    ledger = _ledger(connection, storage, [annotation.id for annotation in found])
    return [
        ExportUnit(
            of[annotation.task_id],
            (annotation,),
            ledger={annotation.id: ledger[annotation.id]} if annotation.id in ledger else {},
        )
        for annotation in found
        if annotation.task_id in of
    ]


def _task_units(
    connection: sa.Connection, storage: Storage, task_ids: Sequence[int]
) -> list[ExportUnit]:
    annotated = defaultdict(list)
    for annotation in tasks.annotations_of(connection, task_ids):
        annotated[annotation.task_id].append(annotation)
    predicted = defaultdict(list)
    for prediction in tasks.predictions_of(connection, task_ids):
        predicted[prediction.task_id].append(prediction)
    ids = [annotation.id for found in annotated.values() for annotation in found]
    ledger = _ledger(connection, storage, ids)
    return [
        ExportUnit(
            task,
            annotated[number],
            predicted[number],
            {a.id: ledger[a.id] for a in annotated[number] if a.id in ledger},
        )
        for number, task in sorted(tasks.of_ids(connection, task_ids).items())
        if annotated[number]
    ]


def _ledger(
    connection: sa.Connection, storage: Storage, annotation_ids: Sequence[int]
) -> dict[int, LedgerState]:
    columns = export_links.c
    found: dict[int, LedgerState] = {}
    ids = sorted(annotation_ids)
    for start in range(0, len(ids), _CHUNK):
        some = ids[start : start + _CHUNK]
        # A page's ids lie close together: their range costs the database less than a list of them.
        close = some[-1] - some[0] < 4 * len(some)
        number = columns.annotation_id
        rows = bulk.fetch(
            connection,
            sa.select(
                columns.annotation_id,
                columns.key,
                columns.digest,
                columns.object_exists,
                columns.attempts,
            ).where(
                columns.storage_id == storage.id,
                number.between(some[0], some[-1]) if close else number.in_(some),
            ),
        )
        found |= {row[0]: LedgerState(row[1], row[2], bool(row[3]), row[4]) for row in rows}
    return found


#: How many values one statement may list.
_CHUNK = 5_000
