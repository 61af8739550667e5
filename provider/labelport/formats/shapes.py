"""The keys a row may have, and the task they make."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime

from msgspec import UNSET, Raw, Struct, UnsetType

from labelport.errors import FormatError
from labelport.formats.refusing import SHALLOW, refuse_depth
from labelport.model import AnnotationRow, PredictionRow, TaskRow

#: What the author of a misshapen row does.
REMEDY = 'Write the row as {"data": {…}}, or as the data alone'
_LABEL_KEYS = ("annotations", "completions", "predictions")


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


class Shape(Struct, gc=False):
    """A row whose JSON is sound; without ``data``, the row itself is the data."""

    data: Raw | UnsetType = UNSET
    annotations: list[Annotation] | UnsetType | None = UNSET
    completions: list[Annotation] | UnsetType | None = UNSET  #: what annotations once were called
    predictions: list[Prediction] | UnsetType | None = UNSET
    allow_skip: Raw | UnsetType = UNSET
    meta: Raw | UnsetType = UNSET


def task(shape: Shape, body: bytes | Raw, row: int) -> TaskRow:
    """The task of a row; *body* is the whole row. FormatError says what is wrong with it."""
    labels = _labelled(shape)
    if labels:
        refuse_repeated(bytes(body))
    if shape.data is UNSET:
        if labels:
            raise FormatError(f'"{labels[0]}" without "data"', REMEDY)
        return TaskRow(row, _data(body))
    if shape.annotations and shape.completions:
        raise FormatError('both "annotations" and "completions"', "Keep one of the two")
    return TaskRow(
        row,
        _data(shape.data),
        [_annotation(each) for each in shape.annotations or shape.completions or ()],
        [_prediction(each) for each in shape.predictions or ()],
        _flag(shape.allow_skip),
        _meta(shape.meta),
    )


def refuse_repeated(body: bytes) -> None:
    """Raise FormatError if a key that matters stands twice in the row: one would be lost."""
    for name in ("data", *_LABEL_KEYS):
        if body.count(b'"%b"' % name.encode()) > 1:
            pairs = json.JSONDecoder(object_pairs_hook=list).decode(body.decode())
            if [key for key, _ in pairs].count(name) > 1:
                raise FormatError(f'"{name}" stands twice in the row', "Keep one of the two")


def _labelled(shape: Shape) -> Sequence[str]:
    return [name for name in _LABEL_KEYS if getattr(shape, name) is not UNSET]


def _data(raw: bytes | Raw) -> str:
    text = _text(raw).strip()
    if text[0] != "{":
        raise FormatError('"data" is not an object', REMEDY)
    if text[1] != '"' and not text[1:-1].strip():
        raise FormatError("empty: the task has no data", REMEDY)
    return text


def _text(raw: bytes | Raw) -> str:
    text = str(raw, "utf-8")
    if len(text) > SHALLOW:
        refuse_depth(text)
    return text


def _result(raw: Raw) -> str:
    text = _text(raw)
    if text[0] != "[":
        raise FormatError('"result" is not a list', 'Write the labels as "result": […]')
    return text


def _annotation(shape: Annotation) -> AnnotationRow:
    return AnnotationRow(
        _result(shape.result),
        _who(shape.completed_by),
        bool(shape.was_cancelled),
        bool(shape.ground_truth),
        shape.lead_time,
        _utc(shape.created_at),
        _utc(shape.updated_at),
    )


def _prediction(shape: Prediction) -> PredictionRow:
    return PredictionRow(_result(shape.result), shape.score, shape.model_version)


def _who(person: int | str | Person | None) -> str | None:
    if isinstance(person, Person):
        person = person.email or person.id
    return None if person is None or person == "" else str(person)


def _utc(moment: datetime | None) -> datetime | None:
    """*moment* in UTC, which is also what a time without a zone is taken for."""
    if moment is None:
        return None
    if moment.tzinfo is None:
        return moment.replace(tzinfo=UTC)
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise FormatError(f"{moment} is no time that UTC has", "Correct the time") from None


def _flag(raw: Raw | UnsetType) -> bool:
    if raw is UNSET:
        return True
    match bytes(raw):
        case b"true" | b"null":
            return True
        case b"false":
            return False
    raise FormatError('"allow_skip" is neither true nor false', "Write true or false")


def _meta(raw: Raw | UnsetType) -> str | None:
    if raw is UNSET or bytes(raw) == b"null":
        return None
    text = _text(raw)
    if text[0] != "{":
        raise FormatError('"meta" is not an object', 'Write "meta": {…}')
    return text
