"""Annotations and tasks → the JSON that is exported, in the shapes Label Studio users know.

The same annotation makes the same bytes, always: a digest of them tells whether an object has
changed. So there is no clock in them, the order of keys is fixed, and the task inside an
annotation is without what changes when somebody else annotates it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime

from msgspec import Raw, Struct
from msgspec.json import Encoder

from labelport.model import Annotation, ExportFormat, ExportUnit, Link, Prediction, Storage, Task

#: Of every exported JSON object.
CONTENT_TYPE = "application/json"

_encode = Encoder().encode
_NULL = Raw(b"null")
_LONGEST_NUMBER = 18  #: digits; longer ones are names, whatever they look like


class Email(Struct, gc=False):
    """An annotator whom we know by address."""

    email: str


class AnnotationFields(Struct, gc=False):
    """An annotation inside its task."""

    id: int
    result: Raw
    completed_by: Email | int | str | None
    was_cancelled: bool
    ground_truth: bool
    lead_time: float | None
    created_at: datetime
    updated_at: datetime
    task: int
    project: int


class PredictionFields(Struct, gc=False):
    """A prediction inside its task."""

    id: int
    result: Raw
    score: float | None
    model_version: str | None
    created_at: datetime
    task: int
    project: int


class NestedTask(Struct, gc=False):
    """The task inside an annotation: what it is, and not how far its labeling has come."""

    id: int
    data: Raw
    meta: Raw
    created_at: datetime
    inner_id: int
    overlap: int
    allow_skip: bool
    project: int


class AnnotationBody(Struct, gc=False):
    """An annotation with its task inside."""

    id: int
    result: Raw
    completed_by: Email | int | str | None
    was_cancelled: bool
    ground_truth: bool
    lead_time: float | None
    created_at: datetime
    updated_at: datetime
    task: NestedTask
    project: int


class TaskBody(Struct, gc=False):
    """A task with all that people and models said of it."""

    id: int
    data: Raw
    meta: Raw
    annotations: list[AnnotationFields]
    predictions: list[PredictionFields]
    created_at: datetime
    updated_at: datetime
    inner_id: int
    project: int
    overlap: int
    allow_skip: bool
    is_labeled: bool
    total_annotations: int
    cancelled_annotations: int
    total_predictions: int


class Source(Struct, gc=False):
    """The object that a task was imported from."""

    uri: str | None
    key: str
    etag: str
    row_group: int | None
    row_index: int | None


class Origin(Struct, gc=False):
    """What a line of a file has beside its annotation."""

    source: Source | None
    digest: str


def object_body(storage: Storage, unit: ExportUnit) -> bytes:
    """What the object of *unit* holds, in the storage's format: a task, else one annotation."""
    if storage.export_format is ExportFormat.TASK:
        return task_body(unit)
    (annotation,) = unit.annotations
    return annotation_body(unit.task, annotation)


def annotation_body(task: Task, annotation: Annotation) -> bytes:
    """*annotation* as JSON, with *task* inside."""
    return _encode(
        AnnotationBody(
            annotation.id,
            Raw(annotation.result),
            annotator(annotation.completed_by),
            annotation.was_cancelled,
            annotation.ground_truth,
            annotation.lead_time,
            annotation.created_at,
            annotation.updated_at,
            NestedTask(
                task.id,
                Raw(task.data),
                _raw(task.meta),
                task.created_at,
                task.inner_id,
                task.overlap,
                task.allow_skip,
                task.project_id,
            ),
            task.project_id,
        )
    )


def task_body(unit: ExportUnit) -> bytes:
    """The task of *unit* as JSON, with its annotations and predictions.

    Its totals are those of the annotations beside them, whatever the task's row says.
    """
    task = unit.task
    cancelled = sum(annotation.was_cancelled for annotation in unit.annotations)
    done = len(unit.annotations) - cancelled
    return _encode(
        TaskBody(
            task.id,
            Raw(task.data),
            _raw(task.meta),
            _annotations(task, unit.annotations),
            _predictions(task, unit.predictions),
            task.created_at,
            task.updated_at,
            task.inner_id,
            task.project_id,
            task.overlap,
            task.allow_skip,
            done >= task.overlap,
            done,
            cancelled,
            len(unit.predictions),
        )
    )


def annotation_line(
    unit: ExportUnit, annotation: Annotation, sources: Mapping[int, Storage] | None = None
) -> bytes:
    """One line of a JSONL file, newline included: `annotation_body`, its source and its digest.

    *sources* are import storages by id; without the one the task came from, the source's URI is
    null and its key and etag remain.
    """
    body = annotation_body(unit.task, annotation)
    origin = Origin(_source(unit.task.link, sources or {}), digest(body))
    line = b"".join((body[:-1], b",", _encode(origin)[1:]))
    # Data may have been imported with line breaks between its values; a string holds none.
    return line.replace(b"\n", b" ").replace(b"\r", b" ") + b"\n"


def digest(body: bytes) -> str:
    """SHA-256 of *body* in hexadecimal, as the ledger keeps it."""
    return hashlib.sha256(body).hexdigest()


def annotator(completed_by: str | None) -> Email | int | str | None:
    """Who annotated, as Label Studio spells it; reading it back gives *completed_by* again."""
    if completed_by is None:
        return None
    if "@" in completed_by:
        return Email(completed_by)
    if completed_by.isascii() and completed_by.isdigit() and len(completed_by) <= _LONGEST_NUMBER:
        number = int(completed_by)
        if str(number) == completed_by:
            return number
    return completed_by


def _annotations(task: Task, annotations: Sequence[Annotation]) -> list[AnnotationFields]:
    return [
        AnnotationFields(
            each.id,
            Raw(each.result),
            annotator(each.completed_by),
            each.was_cancelled,
            each.ground_truth,
            each.lead_time,
            each.created_at,
            each.updated_at,
            task.id,
            task.project_id,
        )
        for each in sorted(annotations, key=_id)
    ]


def _predictions(task: Task, predictions: Sequence[Prediction]) -> list[PredictionFields]:
    return [
        PredictionFields(
            each.id,
            Raw(each.result),
            each.score,
            each.model_version,
            each.created_at,
            task.id,
            task.project_id,
        )
        for each in sorted(predictions, key=_id)
    ]


def _id(labels: Annotation | Prediction) -> int:
    return labels.id


def _raw(text: str | None) -> Raw:
    return _NULL if text is None else Raw(text)


def _source(link: Link | None, sources: Mapping[int, Storage]) -> Source | None:
    if link is None:
        return None
    storage = sources.get(link.storage_id)
    uri = storage.uri(link.key) if storage else None
    return Source(uri, link.key, link.etag, link.row_group, link.row_index)
