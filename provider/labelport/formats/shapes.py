"""The keys a row may have, and the task they make."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import count, repeat
from operator import attrgetter

from msgspec import UNSET, Raw, Struct, UnsetType
from msgspec.json import Decoder

from labelport.errors import FormatError
from labelport.formats.refusing import SHALLOW, refuse_depth
from labelport.model import AnnotationRow, PredictionRow, TaskRow

#: What the author of a misshapen row does.
REMEDY = 'Write the row as {"data": {…}}, or as the data alone'
_PRECIOUS = ("data", "annotations", "completions", "predictions")
_OF_ANNOTATION = ("result", "task")
_OF_SOURCE_TASK = ("data",)
_MOST_ID = 2**63


class Person(Struct, gc=False):
    """Who annotated, as an exported annotation may spell it out."""

    email: str | None = None
    id: int | str | None = None


class Annotation(Struct, gc=False):
    result: Raw
    completed_by: int | str | Person | None = None
    was_cancelled: bool | None = None
    ground_truth: bool | None = None
    lead_time: float | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None


class Prediction(Struct, gc=False):
    result: Raw
    score: float | None = None
    model_version: str | None = None


class Plain(Struct, gc=False, forbid_unknown_fields=True):
    """The row of most files: data, and nothing else."""

    data: Raw


class Shape(Struct, gc=False):
    """A row whose JSON is sound; without ``data``, the row itself is the data."""

    data: Raw | UnsetType = UNSET
    annotations: list[Annotation] | UnsetType | None = UNSET
    completions: list[Annotation] | UnsetType | None = UNSET  #: what annotations once were called
    predictions: list[Prediction] | UnsetType | None = UNSET
    allow_skip: Raw | UnsetType = UNSET
    meta: Raw | UnsetType = UNSET
    result: Raw | UnsetType = UNSET  #: with ``task``, the row may be an exported annotation
    task: Raw | UnsetType = UNSET


class SourceTask(Struct, gc=False):
    """The task inside an exported annotation, with the ids it had there."""

    data: Raw | UnsetType = UNSET
    id: int | str | None = None
    project: int | str | None = None
    allow_skip: Raw | UnsetType = UNSET
    meta: Raw | UnsetType = UNSET


_ANNOTATION = Decoder(Annotation).decode
_SOURCE_TASK = Decoder(SourceTask).decode


def plain_tasks(rows: Iterable[Plain], first: int) -> list[TaskRow]:
    """The tasks of *rows*, which are numbered from *first*."""
    texts = [str(row.data, "utf-8") for row in rows]
    if len(max(texts, key=len)) > SHALLOW or {text[:2] for text in texts} != {'{"'}:
        texts = [_data(row) for row in texts]
    defaults = TaskRow(0, "")[2:]
    # A loop that calls TaskRow would take several times as long.
    return list(map(TaskRow._make, zip(count(first), texts, *map(repeat, defaults))))


def task(shape: Shape, body: bytes | Raw, row: int) -> TaskRow:
    """The task of a row; *body* is the whole row. FormatError says what is wrong with it."""
    if shape.data is UNSET:
        lost = next((name for name in _PRECIOUS if getattr(shape, name) is not UNSET), None)
        if lost:
            raise FormatError(f'"{lost}" without "data"', REMEDY)
        return _annotated(shape, body, row) or TaskRow(row, _data(str(body, "utf-8").strip()))
    if shape.annotations and shape.completions:
        raise FormatError('both "annotations" and "completions"', "Keep one of the two")
    annotations = shape.annotations or shape.completions
    return TaskRow(
        row,
        _data(str(shape.data, "utf-8")),
        [_annotation(each) for each in annotations] if annotations else (),
        [_prediction(each) for each in shape.predictions] if shape.predictions else (),
        shape.allow_skip is UNSET or _flag(shape.allow_skip),
        None if shape.meta is UNSET else _meta(shape.meta),
    )


def _annotated(shape: Shape, body: bytes | Raw, row: int) -> TaskRow | None:
    """The task inside an exported annotation, with that annotation; None: *body* is none."""
    if shape.result is UNSET or shape.task is UNSET or bytes(shape.result)[:1] != b"[":
        return None
    nested = bytes(shape.task)
    source = _SOURCE_TASK(nested) if nested[:1] == b"{" else None
    if source is None or source.data is UNSET:
        return None
    refuse_repeated(bytes(body), _OF_ANNOTATION)
    refuse_repeated(nested, _OF_SOURCE_TASK)
    return TaskRow(
        row,
        _data(str(source.data, "utf-8")),
        [_annotation(_ANNOTATION(body))],
        allow_skip=source.allow_skip is UNSET or _flag(source.allow_skip),
        meta=None if source.meta is UNSET else _meta(source.meta),
        source_task=_source_name(source),
    )


def _source_name(source: SourceTask) -> str | None:
    ids = (source.project, source.id)
    if all(isinstance(number, int) and 0 < number < _MOST_ID for number in ids):
        return f"{source.project}/{source.id}"
    return None


def repeated(block: bytes, shapes: Sequence[Shape]) -> bool:
    """Whether a row of *block* may have a key twice, so that one value would be lost."""
    for name in _PRECIOUS:
        having = len(shapes) - list(map(attrgetter(name), shapes)).count(UNSET)
        if having and block.count(b'"%b"' % name.encode()) > having:
            return True
    return False


def refuse_repeated(body: bytes, precious: Sequence[str] = _PRECIOUS) -> None:
    """Raise FormatError if a row, which is sound JSON, has a key twice that must not be lost."""
    if all(body.count(b'"%b"' % name.encode()) < 2 for name in precious):
        return
    pairs = json.JSONDecoder(object_pairs_hook=list).decode(body.decode())
    names = [name for name, _ in pairs]
    for name in precious:
        if names.count(name) > 1:
            raise FormatError(f'"{name}" stands twice in the row', "Keep one of the two")


def _data(text: str) -> str:
    if len(text) > SHALLOW:
        refuse_depth(text)
    if text[:2] == '{"':
        return text
    if text[0] != "{":
        raise FormatError('"data" is not an object', REMEDY)
    if not text[1:-1].strip():
        raise FormatError("empty: the task has no data", REMEDY)
    return text


def _result(raw: Raw) -> str:
    text = str(raw, "utf-8")
    if text[0] != "[":
        raise FormatError('"result" is not a list', 'Write the labels as "result": […]')
    if len(text) > SHALLOW:
        refuse_depth(text)
    return text


def _annotation(shape: Annotation) -> AnnotationRow:
    return AnnotationRow(
        _result(shape.result),
        _who(shape.completed_by),
        shape.was_cancelled is True,
        shape.ground_truth is True,
        shape.lead_time,
        shape.created_at and _utc(shape.created_at),
        shape.updated_at and _utc(shape.updated_at),
    )


def _prediction(shape: Prediction) -> PredictionRow:
    return PredictionRow(_result(shape.result), shape.score, shape.model_version)


def _who(person: int | str | Person | None) -> str | None:
    if isinstance(person, Person):
        person = person.email or person.id
    return None if person is None or person == "" else str(person)


def _utc(moment: datetime) -> datetime:
    """*moment* in UTC, which is also what a time without a zone is taken for."""
    if moment.tzinfo is None:
        return moment.replace(tzinfo=UTC)
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise FormatError(f"{moment} is no time that UTC has", "Correct the time") from None


def _flag(raw: Raw) -> bool:
    match bytes(raw):
        case b"true" | b"null":
            return True
        case b"false":
            return False
    raise FormatError('"allow_skip" is neither true nor false', "Write true or false")


def _meta(raw: Raw) -> str | None:
    text = str(raw, "utf-8")
    if text == "null":
        return None
    if text[0] != "{":
        raise FormatError('"meta" is not an object', 'Write "meta": {…}')
    refuse_depth(text)
    return text
