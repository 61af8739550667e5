"""Annotations are made, changed and deleted by the rows of a file, a thousand a transaction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from typing import BinaryIO, NamedTuple, cast

from labelport.catalog import Catalog
from labelport.catalog.annotations import Changes, create, delete, get, lock_projects, update
from labelport.errors import NotFound
from labelport.formats.changes import AnnotationChange, read_changes
from labelport.model import EventKind, Problem

_ROWS = 1_000
_CHUNK_BYTES = 2**20
_MAX_ROW_BYTES = 16 * 2**20


class Annotated(NamedTuple):
    """What one transaction saved, and the rows that it left out."""

    created: int
    updated: int
    deleted: int
    problems: Sequence[Problem]


def annotate(catalog: Catalog, name: str, file: BinaryIO) -> Iterator[Annotated]:
    """Do what the rows of *file* ask for, in their order; once iterated, a step is saved.

    A row without ``id`` creates an annotation of its ``task``; one with ``id`` changes what else
    it holds, or deletes with ``deleted``. Bad rows are left out, and told; nothing undoes the
    others. The same file once more creates its annotations once more.

    :param name: the file's, for problems; JSONL with one row is told by ``.jsonl``
    """
    chunks = iter(partial(file.read, _CHUNK_BYTES), b"")
    found = read_changes(name, chunks, max_row_bytes=_MAX_ROW_BYTES)
    while some := list(islice(found, _ROWS)):
        changes = [each for each in some if isinstance(each, AnnotationChange)]
        problems = [each for each in some if isinstance(each, Problem)]
        yield _save(catalog, name, changes, problems)


def _save(
    catalog: Catalog, name: str, changes: Sequence[AnnotationChange], problems: list[Problem]
) -> Annotated:
    done: list[EventKind] = []
    with catalog.begin() as connection:
        lock_projects(
            connection,
            task_ids=[change.task_id for change in changes if change.task_id],
            annotation_ids=[change.annotation_id for change in changes if change.annotation_id],
        )
        for change in changes:
            number, task_id = change.annotation_id, change.task_id
            try:
                if number is None:
                    create(connection, task_id or 0, change.values)
                elif task_id not in (None, get(connection, number).task_id):
                    raise NotFound(f"annotation {number} is none of task {task_id}")
                elif change.deleted:
                    delete(connection, number)
                else:
                    update(connection, number, **_given(change))
            except NotFound as error:
                problems.append(Problem(name, change.row, str(error), "Correct the row's ids"))
            else:
                done.append(_kind(change))
    created, updated, deleted = (done.count(kind) for kind in EventKind)
    return Annotated(created, updated, deleted, problems)


def _kind(change: AnnotationChange) -> EventKind:
    if change.annotation_id is None:
        return EventKind.CREATED
    return EventKind.DELETED if change.deleted else EventKind.UPDATED


def _given(change: AnnotationChange) -> Changes:
    """What the row holds of what may be changed."""
    names = change.given & set(Changes.__annotations__)
    return cast(Changes, {name: getattr(change.values, name) for name in names})
