"""Rows that say which task they were exported from: those that agree become one task.

An export of annotations is an object for each, so what was one task comes back in many rows, in
any order and through several workers. The first row makes the task, with the name of its source;
the others add their annotations to it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import sqlalchemy as sa

from labelport.catalog import bulk, schema
from labelport.catalog.clock import now
from labelport.catalog.schema import tasks
from labelport.model import AnnotationRow, Problem, TaskRow

if TYPE_CHECKING:
    from labelport.catalog.batches import Target

    Row = tuple[Target, TaskRow]

_CHUNK = 5_000  # values in one statement; SQLite takes at most 32,766


class Settled(NamedTuple):
    """What becomes of a batch's rows once it is known which of their tasks exist."""

    inserts: list[Row]  #: tasks to make, with the annotations of all rows that share them
    joins: list[tuple[int, Row]]  #: a task that exists, and a row with annotations to add
    problems: list[Problem]


class _Existing(NamedTuple):
    """A task that some row of a source made."""

    id: int
    data: str


class _Saved(NamedTuple):
    """An annotation that a task has."""

    completed_by: str | None
    created_at: datetime
    result: str


def settle(connection: sa.Connection, project_id: int, rows: Sequence[Row]) -> Settled:
    """Tell the rows that make a task from those whose task exists, or is made by a row before.

    Inserts come in order of their source, so that two workers never wait for each other.
    """
    settled = Settled([row for row in rows if not row[1].source_task], [], [])
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row[1].source_task:
            groups[row[1].source_task].append(row)
    existing = _existing(connection, project_id, list(groups))
    for source in sorted(groups, key=lambda name: (len(name), name)):
        task = existing.get(source)
        alike = _alike(groups[source], task, settled.problems)
        if task:
            settled.joins.extend((task.id, row) for row in alike)
        else:
            settled.inserts.append(_together(alike))
    return settled._replace(joins=_without_known(connection, settled.joins))


def count_in(connection: sa.Connection, joins: Sequence[tuple[int, Row]]) -> None:
    """Add the annotations of *joins* to their tasks' counters.

    Raises:
        Conflict: one of the tasks was deleted meanwhile.
    """
    counts: dict[int, list[int]] = defaultdict(lambda: [0, 0])
    for task_id, (_, row) in joins:
        for annotation in row.annotations:
            counts[task_id][annotation.was_cancelled] += 1
    if not counts:
        return
    done = sa.bindparam("done", type_=sa.Integer)
    counted = connection.execute(
        tasks.update()
        .where(tasks.c.id == sa.bindparam("task_id"))
        .values(
            total_annotations=tasks.c.total_annotations + done,
            cancelled_annotations=tasks.c.cancelled_annotations
            + sa.bindparam("cancelled", type_=sa.Integer),
            is_labeled=tasks.c.total_annotations + done >= tasks.c.overlap,
            updated_at=now(),
        ),
        [
            {"task_id": task_id, "done": counts[task_id][0], "cancelled": counts[task_id][1]}
            for task_id in sorted(counts)
        ],
    ).rowcount
    if counted != len(counts):
        raise bulk.Conflict


def same_json(one: str, other: str) -> bool:
    """Whether two JSON texts hold the same value, however they are written."""
    return one == other or msgspec.json.decode(one) == msgspec.json.decode(other)


def _existing(
    connection: sa.Connection, project_id: int, sources: Sequence[str]
) -> dict[str, _Existing]:
    found: dict[str, _Existing] = {}
    for start in range(0, len(sources), _CHUNK):
        query = sa.select(tasks.c.source_task, tasks.c.id, sa.cast(tasks.c.data, sa.Text)).where(
            tasks.c.project_id == project_id,
            tasks.c.source_task.in_(sources[start : start + _CHUNK]),
        )
        found |= {row[0]: _Existing(row[1], row[2]) for row in connection.execute(query)}
    return found


def _alike(rows: Sequence[Row], task: _Existing | None, problems: list[Problem]) -> list[Row]:
    """The rows whose data is the task's, or the first row's. Labels never move to other data."""
    data = task.data if task else rows[0][1].data
    alike = []
    for target, row in rows:
        if same_json(row.data, data):
            alike.append((target, row))
            continue
        target.refused |= {row.row}
        what = f"was imported as task {task.id}" if task else "another row brings"
        problems.append(
            Problem(
                target.meta.key,
                row.row,
                f"its annotation is of task {row.source_task}, which {what}, with other data",
                "Import it into another project, or delete that task; then sync again.",
                None if row.row_group < 0 else row.row_group,
            )
        )
    return alike


def _together(rows: Sequence[Row]) -> Row:
    target, first = rows[0]
    if len(rows) == 1:
        return rows[0]
    labels = [annotation for _, row in rows for annotation in row.annotations]
    return target, first._replace(annotations=labels)


def _without_known(
    connection: sa.Connection, joins: Sequence[tuple[int, Row]]
) -> list[tuple[int, Row]]:
    """*joins* without the annotations that were saved when their object was read before.

    An object that is new to the catalog has none: it is saved together with its annotations.
    """
    again = {task_id for task_id, (target, _) in joins if target.revisited}
    if not again:
        return list(joins)
    saved = _saved(connection, sorted(again))
    return [
        (task_id, (target, row._replace(annotations=_unknown(row, saved[task_id], target.refresh))))
        if target.revisited
        else (task_id, (target, row))
        for task_id, (target, row) in joins
    ]


def _saved(connection: sa.Connection, task_ids: Sequence[int]) -> defaultdict[int, list[_Saved]]:
    found: defaultdict[int, list[_Saved]] = defaultdict(list)
    for start in range(0, len(task_ids), _CHUNK):
        query = sa.select(
            schema.annotations.c.task_id,
            schema.annotations.c.completed_by,
            schema.annotations.c.created_at,
            sa.cast(schema.annotations.c.result, sa.Text),
        ).where(schema.annotations.c.task_id.in_(task_ids[start : start + _CHUNK]))
        for task_id, *values in connection.execute(query):
            found[task_id].append(_Saved(*values))
    return found


def _unknown(row: TaskRow, saved: Iterable[_Saved], changed: bool) -> list[AnnotationRow]:
    return [
        annotation
        for annotation in row.annotations
        if not any(_is(annotation, each, changed) for each in saved)
    ]


def _is(annotation: AnnotationRow, saved: _Saved, changed: bool) -> bool:
    """Whether *annotation* was saved as *saved*; in an object that *changed*, its labels may have.

    As in every row that is a task already, labels that changed in the bucket change nothing here.
    """
    if annotation.completed_by != saved.completed_by:
        return False
    if annotation.created_at is None:
        return same_json(annotation.result, saved.result)
    if annotation.created_at != saved.created_at:
        return False
    return changed or same_json(annotation.result, saved.result)
