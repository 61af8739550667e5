"""Annotations: made, changed and deleted one by one, each with its event and its task's counters.

Results are JSON text of a list that every database accepts: `labelport.formats` sees to that, here
nothing is parsed. Whoever changes annotations of several projects in one transaction begins with
`lock_projects`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from datetime import datetime
from typing import TypedDict, Unpack

import sqlalchemy as sa

from labelport.catalog import bulk, deleted_annotations, events
from labelport.catalog.clock import now
from labelport.catalog.schema import annotations as rows
from labelport.catalog.schema import export_links, tasks
from labelport.errors import NotFound
from labelport.model import Annotation, AnnotationRow, EventKind

_COLUMNS = bulk.columns_of(rows, Annotation.__struct_fields__)

#: How many values one statement may list.
_CHUNK = 5_000


class Changes(TypedDict, total=False):
    """What `update` may change; what is not given stays."""

    result: str  #: JSON text
    completed_by: str | None
    was_cancelled: bool
    ground_truth: bool
    lead_time: float | None  #: seconds


def create(
    connection: sa.Connection, task_id: int, row: AnnotationRow, *, source_id: str | None = None
) -> Annotation:
    """Save a new annotation of a task. Raises `NotFound` if there is no such task.

    Its times are *row*'s, else now.

    :param source_id: what a labeling tool calls it, unique in the project
    """
    project_id = lock_task(connection, task_id)
    values = row._asdict() | {
        "task_id": task_id,
        "project_id": project_id,
        "source_id": source_id,
        "result": _json(row.result),
        "created_at": row.created_at or now(),
        "updated_at": row.updated_at or row.created_at or now(),
    }
    query = rows.insert().values(values).returning(*_COLUMNS)
    saved = Annotation(**connection.execute(query).mappings().one())
    events.record(connection, EventKind.CREATED, rows.c.id == saved.id)
    recount(connection, [task_id])
    return saved


def update(
    connection: sa.Connection,
    annotation_id: int,
    *,
    updated_at: datetime | None = None,
    **changes: Unpack[Changes],
) -> Annotation:
    """Change an annotation. Raises `NotFound` if there is none.

    :param updated_at: when it was changed, if not now
    """
    _lock(connection, rows, annotation_id, "annotation")
    values: dict[str, object] = {**changes, "updated_at": updated_at or now()}
    if "result" in changes:
        values["result"] = _json(changes["result"])
    this = rows.c.id == annotation_id
    query = rows.update().where(this).values(values).returning(*_COLUMNS)
    saved = Annotation(**connection.execute(query).mappings().one())
    events.record(connection, EventKind.UPDATED, this)
    recount(connection, [saved.task_id])
    return saved


def confirm(connection: sa.Connection, annotation_id: int, updated_at: datetime) -> None:
    """Note that at a later time an annotation was still the same: nothing happened, no event."""
    older = (rows.c.id == annotation_id) & (rows.c.updated_at < updated_at)
    connection.execute(rows.update().where(older).values(updated_at=updated_at))


def delete(connection: sa.Connection, annotation_id: int) -> None:
    """Delete an annotation; its rows of the ledger become tombstones.

    What was exported of it stays in the stores until an export deletes it. A labeling tool that
    has sent it brings it back only by changing it later. Raises `NotFound`.
    """
    _lock(connection, rows, annotation_id, "annotation")
    this = rows.c.id == annotation_id
    task_id = connection.execute(sa.select(rows.c.task_id).where(this)).scalar_one()
    deleted_annotations.remember(connection, this)
    bury(connection, this)
    recount(connection, [task_id])


def bury(connection: sa.Connection, which: sa.ColumnElement[bool]) -> None:
    """Delete the annotations *which* holds for, with events and tombstones, all at once.

    Under their project's lock (`events.lock`); their tasks' counters are the caller's to mind.
    """
    events.record(connection, EventKind.DELETED, which)
    # Annotations in order of id, then the ledger, as an export locks them: so nobody deadlocks.
    doomed = sa.select(rows.c.id).where(which).order_by(rows.c.id)
    gone = list(connection.scalars(doomed.with_for_update()))
    connection.execute(rows.delete().where(which))
    for start in range(0, len(gone), _CHUNK):
        connection.execute(
            export_links.update()
            .where(
                export_links.c.annotation_id.in_(gone[start : start + _CHUNK]),
                export_links.c.deleted_at.is_(None),
            )
            .values(deleted_at=now(), updated_at=now())
        )


def recount(connection: sa.Connection, task_ids: Collection[int]) -> None:
    """Set the counters of up to a few thousand tasks by what they have: no error is carried on.

    A statement for all tasks with the same numbers, which are few.
    """
    of_those_cancelled = sa.func.count(sa.case((rows.c.was_cancelled, 1)))
    counted = connection.execute(
        sa.select(rows.c.task_id, sa.func.count(), of_those_cancelled)
        .where(rows.c.task_id.in_(task_ids))
        .group_by(rows.c.task_id)
    )
    counts = {task_id: (total - cancelled, cancelled) for task_id, total, cancelled in counted}
    alike: dict[tuple[int, int], list[int]] = defaultdict(list)
    for task_id in sorted(set(task_ids)):
        alike[counts.get(task_id, (0, 0))].append(task_id)
    for (done, cancelled), some in alike.items():
        connection.execute(
            tasks.update()
            .where(tasks.c.id.in_(some))
            .values(
                total_annotations=done,
                cancelled_annotations=cancelled,
                is_labeled=done >= tasks.c.overlap,
                updated_at=now(),
            )
        )


def get(connection: sa.Connection, annotation_id: int) -> Annotation:
    """An annotation. Raises `NotFound`."""
    query = sa.select(*_COLUMNS).where(rows.c.id == annotation_id)
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        raise _not_found("annotation", annotation_id)
    return Annotation(**row)


def page(
    connection: sa.Connection,
    *,
    task_id: int | None = None,
    project_id: int | None = None,
    after: int = 0,
    limit: int = 100,
) -> list[Annotation]:
    """Up to *limit* annotations with an id above *after*, in order of id.

    The id of the last one is the *after* of the next page; a short page is the last.
    """
    query = sa.select(*_COLUMNS).where(rows.c.id > after)
    if task_id is not None:
        query = query.where(rows.c.task_id == task_id)
    if project_id is not None:
        query = query.where(rows.c.project_id == project_id)
    found = connection.execute(query.order_by(rows.c.id).limit(limit))
    return [Annotation(**row) for row in found.mappings()]


def lock_task(connection: sa.Connection, task_id: int) -> int:
    """Take `events.lock` for a task's project; the project's id. Raises `NotFound`."""
    return _lock(connection, tasks, task_id, "task")


def lock_projects(
    connection: sa.Connection, *, task_ids: Iterable[int] = (), annotation_ids: Iterable[int] = ()
) -> None:
    """Take `events.lock` for the projects of these tasks and annotations, a few thousand of each.

    Without it, two transactions that each change several projects could deadlock.
    """
    projects: set[int] = set()
    for table, ids in ((tasks, task_ids), (rows, annotation_ids)):
        query = sa.select(table.c.project_id).where(table.c.id.in_(list(ids))).distinct()
        projects.update(connection.scalars(query))
    events.lock(connection, projects)


def _lock(connection: sa.Connection, table: sa.Table, number: int, what: str) -> int:
    """The project of a task or annotation that exists, and will until the transaction ends."""
    query = sa.select(table.c.project_id).where(table.c.id == number)
    events.lock(connection, connection.scalars(query))
    project_id: int | None = connection.scalar(query)  # it may have gone while we waited
    if project_id is None:
        raise _not_found(what, number)
    return project_id


def _json(text: str) -> sa.Cast[str]:
    return sa.cast(sa.literal(text, sa.Text), rows.c.result.type)


def _not_found(what: str, number: int) -> NotFound:
    return NotFound(f"there is no {what} {number}; see: labelport {what}s list")
