"""What a labeling tool says of annotations, in the JSON of Label Studio's webhooks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, NamedTuple

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from labelport.errors import FormatError
from labelport.formats import refusing, shapes
from labelport.model import AnnotationRow

SAVED = ("ANNOTATION_CREATED", "ANNOTATIONS_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_UPDATED")
DELETED = ("ANNOTATION_DELETED", "ANNOTATIONS_DELETED")
_REMEDY = (
    'Send {"action": "ANNOTATION_CREATED", "annotation": {"id": …, "task": …, "result": […]}}, '
    "with the payload and not the action alone"
)
_MOST_ANNOTATIONS = 1_000  # to be saved by one event: one transaction

_TaskId = Annotated[int, Meta(ge=1, le=2**63 - 1)]
_SourceId = (
    Annotated[int, Meta(ge=0, le=2**63 - 1)] | Annotated[str, Meta(min_length=1, max_length=200)]
)


class Told(NamedTuple):
    """An annotation as the tool has it now: all of it, whether made or changed."""

    source_id: str  #: the tool's id of it
    task_id: int  #: ours
    values: AnnotationRow


class Event(NamedTuple):
    """What happened in the tool."""

    saved: Sequence[Told] = ()
    deleted: Sequence[str] = ()  #: the tool's ids


class _Meta(Struct, gc=False):
    labelport_task: Raw | UnsetType = UNSET


class _Task(Struct, gc=False):
    id: _TaskId | None = None
    meta: Raw | UnsetType = UNSET


class _Body(Struct, gc=False):
    action: str
    annotation: Raw | UnsetType = UNSET
    annotations: Raw | UnsetType = UNSET
    task: Raw | UnsetType = UNSET


class _Named(Struct, gc=False):
    id: _SourceId
    task: _TaskId | None = None


_BODY = msgspec.json.Decoder(_Body)
_NAMED = msgspec.json.Decoder(_Named)
_VALUES = msgspec.json.Decoder(shapes.Annotation)
_TASK = msgspec.json.Decoder(_Task)
_TASK_ID = msgspec.json.Decoder(_TaskId)
_META = msgspec.json.Decoder(_Meta)
_MANY = msgspec.json.Decoder(list[Raw])
_ANY_DATA = Raw(b'{"-": 0}')


def read_event(body: bytes) -> Event | None:
    """What *body* says; None if it is of something else than annotations.

    Every result is JSON that databases accept. A task is the one that ``labelport_task`` in its
    ``meta`` names, else the one of its id. Raises `FormatError`.
    """
    try:
        return _event(_BODY.decode(body))
    except msgspec.ValidationError as error:
        raise FormatError(str(error).replace("`", ""), _REMEDY) from None
    except RecursionError:
        raise refusing.too_deep() from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise FormatError(refusing.explain(body).reason, _REMEDY) from None


def _event(body: _Body) -> Event | None:
    if body.action not in SAVED + DELETED:
        return None
    found = _each(body.annotation) + _each(body.annotations)
    if not found:
        raise FormatError(f"{body.action} without annotation", _REMEDY)
    for annotation in found:
        refusing.refuse(bytes(annotation))
    if body.action in DELETED:
        return Event(deleted=[str(_NAMED.decode(annotation).id) for annotation in found])
    if len(found) > _MOST_ANNOTATIONS:
        raise FormatError(f"more than {_MOST_ANNOTATIONS:,} annotations", "Send several events")
    tasks = [_TASK.decode(task) for task in _each(body.task)]
    return Event(saved=[_told(annotation, tasks) for annotation in found])


def _each(raw: Raw | UnsetType) -> list[Raw]:
    """What is there once, or as a list: the tool itself is of two minds about names."""
    if raw is UNSET or bytes(raw) == b"null":
        return []
    return _MANY.decode(raw) if bytes(raw)[:1] == b"[" else [raw]


def _told(annotation: Raw, tasks: Sequence[_Task]) -> Told:
    named = _NAMED.decode(annotation)
    task = shapes.Shape(data=_ANY_DATA, annotations=[_VALUES.decode(annotation)])
    (values,) = shapes.task(task, b"", 0).annotations
    shapes.refuse_repeated(bytes(annotation), ("result", "id", "task"))
    return Told(str(named.id), _task_id(named, tasks), values)


def _task_id(named: _Named, tasks: Sequence[_Task]) -> int:
    """Our id of the annotation's task, which *tasks* may say more about."""
    if named.task is not None:
        about = next((task for task in tasks if task.id == named.task), None)
    else:
        about = tasks[0] if len(tasks) == 1 else None
    number = (_named_by_meta(about) or about.id) if about else named.task
    if number is None:
        raise FormatError(f'annotation {named.id} without "task"', _REMEDY)
    return number


def _named_by_meta(task: _Task) -> int | None:
    if task.meta is UNSET or bytes(task.meta)[:1] != b"{":
        return None
    number = _META.decode(task.meta).labelport_task
    if number is UNSET or not bytes(number).lstrip(b"-").isdigit():
        return None
    return _TASK_ID.decode(number)
