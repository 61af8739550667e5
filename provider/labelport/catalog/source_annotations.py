"""Annotations of a labeling tool, by the ids that the tool gave them, unique in a project.

Whoever changes those of several projects in one transaction begins with `events.lock`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import sqlalchemy as sa

from labelport.catalog import annotations as saved
from labelport.catalog import bulk, deleted_annotations, events
from labelport.catalog.annotations import Changes
from labelport.catalog.schema import annotations as rows
from labelport.catalog.source_tasks import same_json
from labelport.errors import FormatError
from labelport.model import Annotation, AnnotationRow, EventKind

_COLUMNS = bulk.columns_of(rows, Annotation.__struct_fields__)
_CHUNK = 5_000  # values in one statement


def find(connection: sa.Connection, project_id: int, source_id: str) -> Annotation | None:
    """The annotation of a project that its tool calls *source_id*."""
    this = (rows.c.project_id == project_id) & (rows.c.source_id == source_id)
    row = connection.execute(sa.select(*_COLUMNS).where(this)).mappings().one_or_none()
    return Annotation(**row) if row else None


def projects_of(connection: sa.Connection, source_ids: Sequence[str]) -> list[tuple[str, int]]:
    """Each of *source_ids* with the id of each project that has an annotation called so."""
    found: list[tuple[str, int]] = []
    for start in range(0, len(source_ids), _CHUNK):
        some = rows.c.source_id.in_(source_ids[start : start + _CHUNK])
        query = sa.select(rows.c.source_id, rows.c.project_id).where(some)
        found += [(row[0], row[1]) for row in connection.execute(query)]
    return found


def save(
    connection: sa.Connection, source_id: str, task_id: int, row: AnnotationRow
) -> EventKind | None:
    """Make an annotation what its tool says it is; what happened to it, if anything.

    What is older than the annotation here changes nothing, nor does what is the same, nor what
    comes after its deletion (`deleted_annotations.stays_deleted`).

    Raises:
        NotFound: there is no such task.
        FormatError: the project has an annotation of this id, of another task.
    """
    project_id = saved.lock_task(connection, task_id)
    known = find(connection, project_id, source_id)
    if known is None:
        if deleted_annotations.stays_deleted(connection, project_id, source_id, row.updated_at):
            return None
        saved.create(connection, task_id, row, source_id=source_id)
        return EventKind.CREATED
    if known.task_id != task_id:
        raise FormatError(
            f"annotation {source_id} is of another task",
            "Let only one labeling tool send annotations of a project",
        )
    if row.updated_at and row.updated_at < known.updated_at:
        return None
    changes = _changes(known, row)
    if changes:
        saved.update(connection, known.id, updated_at=row.updated_at, **changes)
        return EventKind.UPDATED
    if row.updated_at:
        saved.confirm(connection, known.id, row.updated_at)
    return None


def delete(connection: sa.Connection, project_id: int, source_ids: Sequence[str]) -> int:
    """Delete annotations of a project because their tool did; how many there were.

    Many cost little more than one. They stay deleted, and leave what `annotations.delete` leaves.
    """
    events.lock(connection, [project_id])
    deleted = 0
    for start in range(0, len(source_ids), _CHUNK):
        some = rows.c.source_id.in_(source_ids[start : start + _CHUNK])
        which = (rows.c.project_id == project_id) & some
        task_ids = list(connection.scalars(sa.select(rows.c.task_id).where(which)))
        deleted_annotations.remember(connection, which, by_tool=True)
        saved.bury(connection, which)
        saved.recount(connection, task_ids)
        deleted += len(task_ids)
    return deleted


def _changes(known: Annotation, row: AnnotationRow) -> Changes:
    """What *row* has otherwise than *known*; JSON that is only written otherwise is the same."""
    changed = {
        name: getattr(row, name)
        for name in Changes.__annotations__
        if getattr(row, name) != getattr(known, name)
    }
    if "result" in changed and same_json(known.result, row.result):
        del changed["result"]
    return cast(Changes, changed)
