"""Rows that say which task they were exported from: those that agree become one task.

An export of annotations is an object for each, so what was one task comes back in many rows, in
any order and through several workers. The first row makes the task, with the name of its source;
the others add their annotations to it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple, TypeVar

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
_T = TypeVar("_T", int, str)


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
    was_cancelled: bool
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
    return settled._replace(joins=list(_without_known(connection, settled)))


def count_in(connection: sa.Connection, joins: Sequence[tuple[int, Row]]) -> None:
    """Add the annotations of *joins* to their tasks' counters.

    Raises:
        Conflict: one of the tasks was deleted meanwhile.
    """
    counts: dict[int, list[int]] = defaultdict(lambda: [0, 0])
    for task_id, (_, row) in joins:
        for annotation in row.annotations:
            counts[task_id][annotation.was_cancelled] += 1
    alike: dict[tuple[int, int], list[int]] = defaultdict(list)
    for task_id, (done, cancelled) in sorted(counts.items()):
        alike[done, cancelled].append(task_id)
    for (done, cancelled), task_ids in sorted(alike.items()):
        for some in _chunks(task_ids):
            _count_in(connection, some, done, cancelled)


def _count_in(
    connection: sa.Connection, task_ids: Sequence[int], done: int, cancelled: int
) -> None:
    """Add the same numbers to the counters of some tasks."""
    total = tasks.c.total_annotations + done
    counted = connection.execute(
        tasks.update()
        .where(tasks.c.id.in_(task_ids))
        .values(
            total_annotations=total,
            cancelled_annotations=tasks.c.cancelled_annotations + cancelled,
            is_labeled=total >= tasks.c.overlap,
            updated_at=now(),
        )
    ).rowcount
    if counted != len(task_ids):
        raise bulk.Conflict


def same_json(one: str, other: str) -> bool:
    """Whether two JSON texts hold the same value, however they are written."""
    return one == other or msgspec.json.decode(one) == msgspec.json.decode(other)


def _existing(
    connection: sa.Connection, project_id: int, sources: Sequence[str]
) -> dict[str, _Existing]:
    found: dict[str, _Existing] = {}
    for some in _chunks(sources):
        query = sa.select(tasks.c.source_task, tasks.c.id, sa.cast(tasks.c.data, sa.Text)).where(
            tasks.c.project_id == project_id, tasks.c.source_task.in_(some)
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


def _without_known(connection: sa.Connection, settled: Settled) -> Iterator[tuple[int, Row]]:
    """The joins without the annotations that their tasks have, from this object or another."""
    saved = _saved(connection, sorted({task_id for task_id, _ in settled.joins}))
    for task_id, (target, row) in settled.joins:
        new = [
            annotation
            for annotation in row.annotations
            if not any(_is(annotation, each, target.revisited) for each in saved[task_id])
        ]
        if target.refresh and any(_was(each, old) for each in new for old in saved[task_id]):
            settled.problems.append(_changed(target, row, task_id))
        else:
            yield task_id, (target, row._replace(annotations=new))


def _saved(connection: sa.Connection, task_ids: Sequence[int]) -> defaultdict[int, list[_Saved]]:
    found: defaultdict[int, list[_Saved]] = defaultdict(list)
    for some in _chunks(task_ids):
        query = sa.select(
            schema.annotations.c.task_id,
            schema.annotations.c.completed_by,
            schema.annotations.c.was_cancelled,
            schema.annotations.c.created_at,
            sa.cast(schema.annotations.c.result, sa.Text),
        ).where(schema.annotations.c.task_id.in_(some))
        for task_id, *values in connection.execute(query):
            found[task_id].append(_Saved(*values))
    return found


def _is(annotation: AnnotationRow, saved: _Saved, revisited: bool) -> bool:
    """Whether *annotation* was saved as *saved*: annotator, time and labels are the same.

    One without a time is known only by an object that was *revisited*: it was read before.
    """
    return (
        annotation.completed_by == saved.completed_by
        and annotation.was_cancelled == saved.was_cancelled
        and (revisited if annotation.created_at is None else _was(annotation, saved))
        and same_json(annotation.result, saved.result)
    )


def _was(annotation: AnnotationRow, saved: _Saved) -> bool:
    """Whether *annotation* once was *saved*, whatever its labels are now."""
    return (annotation.completed_by, annotation.created_at) == (
        saved.completed_by,
        saved.created_at,
    )


def _changed(target: Target, row: TaskRow, task_id: int) -> Problem:
    return Problem(
        target.meta.key,
        row.row,
        f"the row changed, but task {task_id} has an annotation of its old labels",
        "Delete that annotation, or restore the row; then sync again with reimport_changed.",
        None if row.row_group < 0 else row.row_group,
    )


def _chunks(values: Sequence[_T]) -> Iterator[Sequence[_T]]:
    for start in range(0, len(values), _CHUNK):
        yield values[start : start + _CHUNK]
