"""Rows that make, change or delete annotations, out of JSON, arrays and JSONL of any size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Annotated, NamedTuple

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from labelport.errors import FormatError
from labelport.formats import shapes
from labelport.formats.choosing import decoder
from labelport.formats.rows import Rows
from labelport.model import AnnotationRow, Problem, TaskRow

_REMEDY = (
    'Write {"task": id, "result": […]} to create, {"id": id, …} to change, '
    '{"id": id, "deleted": true} to delete'
)

_Id = Annotated[int, Meta(ge=1, le=2**63 - 1)]


class AnnotationChange(NamedTuple):
    """What one row asks for: without *annotation_id* a new annotation of *task_id*."""

    row: int  #: counted from 0 in its file
    annotation_id: int | None
    task_id: int | None
    values: AnnotationRow
    given: frozenset[str] = frozenset()  #: the fields of *values* that the row holds
    deleted: bool = False


class _Row(Struct, gc=False):
    id: _Id | UnsetType = UNSET
    task: _Id | UnsetType = UNSET
    deleted: bool = False
    result: Raw | UnsetType = UNSET


_ROW = msgspec.json.Decoder(_Row)
_VALUES = msgspec.json.Decoder(shapes.Annotation)
_ANY_DATA = Raw(b'{"-": 0}')
_NAMES = msgspec.json.Decoder(dict[str, Raw])


def read_changes(
    name: str, chunks: Iterable[bytes], *, max_row_bytes: int
) -> Iterator[AnnotationChange | Problem]:
    """What the rows of the file *name* ask for, and what is wrong with those that cannot be read.

    *chunks* are of a MiB, but for the last. Every result is JSON that databases accept.
    """
    rest = iter(chunks)
    head = next(rest, b"")
    rows = decoder(name, head, complete=len(head) < 2**20, max_row_bytes=max_row_bytes)
    for chunk in _chained(head, rest):
        for block in rows.feed(chunk):
            yield from _changes(name, block)
    for block in rows.finish():
        yield from _changes(name, block)


def _chained(head: bytes, rest: Iterable[bytes]) -> Iterator[bytes]:
    yield head
    yield from rest


def _changes(name: str, block: Rows) -> Iterator[AnnotationChange | Problem]:
    for problem in block.problems:
        # What is said of a task's shape is true here, what to do about it is not.
        yield replace(problem, remedy=_REMEDY) if problem.remedy == shapes.REMEDY else problem
    for task in block.tasks:
        try:
            yield _change(task)
        except FormatError as error:
            yield Problem(name, task.row, error.reason, error.remedy)


def _change(found: TaskRow) -> AnnotationChange:
    """The change in a row, which without the key ``data`` came as a task's data, checked."""
    if found.annotations or found.predictions:
        raise FormatError("a task with its data, not a change of an annotation", _REMEDY)
    try:
        row = _ROW.decode(found.data)
        values = _values(found.data, row)
    except msgspec.ValidationError as error:
        raise FormatError(str(error).replace("`", ""), _REMEDY) from None
    annotation_id = None if row.id is UNSET else row.id
    task_id = None if row.task is UNSET else row.task
    if annotation_id is None and task_id is None:
        raise FormatError('neither "task" nor "id"', _REMEDY)
    if annotation_id is None and row.deleted:
        raise FormatError('"deleted" without "id"', _REMEDY)
    if annotation_id is None and row.result is UNSET:
        raise FormatError('no "result"', _REMEDY)
    return AnnotationChange(
        found.row,
        annotation_id,
        task_id,
        values,
        frozenset(_NAMES.decode(found.data)),
        row.deleted,
    )


def _values(text: str, row: _Row) -> AnnotationRow:
    """The annotation in a row; one that is only to be changed may lack its result."""
    if row.deleted:
        return AnnotationRow("[]")
    if row.result is UNSET:
        text = '{"result": [], ' + text.lstrip()[1:]
    task = shapes.Shape(data=_ANY_DATA, annotations=[_VALUES.decode(text)])
    (annotation,) = shapes.task(task, b"", 0).annotations
    return annotation
