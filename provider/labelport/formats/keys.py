"""The keys of exported objects: by id as users know them, or by the storage's template."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC
from itertools import islice

import msgspec

from labelport.errors import ConfigurationError
from labelport.key_template import check_template, fill, parse
from labelport.model import ExportFormat, ExportUnit, Storage, Task

__all__ = ["check_template", "object_key"]

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/]+/(.+)", re.DOTALL)
#: So many values of a task's data are looked at for a URI.
_MOST_VALUES = 10_000


def object_key(storage: Storage, unit: ExportUnit) -> str:
    """The key of *unit*'s object in *storage*: equal for equal units, inside the prefix always.

    Two units may get one key from a template: whoever writes looks for that first.
    """
    if storage.export_format in (ExportFormat.JSONL, ExportFormat.PARQUET):
        raise ConfigurationError(f"objects in {storage.export_format} files have no keys")
    if storage.key_template is not None:
        return storage.folder + fill(storage.key_template, _values(storage, unit))
    if storage.export_format is ExportFormat.TASK:
        return f"{storage.folder}{unit.task.id}.json"
    return f"{storage.folder}{unit.annotations[0].id}"


def _values(storage: Storage, unit: ExportUnit) -> dict[str, str]:
    """The fields' values, as far as the template wants what is costly."""
    task, annotation = unit.task, unit.annotations[0]
    of_task = storage.export_format is ExportFormat.TASK
    created = task.created_at if of_task else annotation.created_at
    names = {piece.field for piece in parse(storage.key_template or "")}
    return {
        "project": str(task.project_id),
        "date": created.astimezone(UTC).date().isoformat(),
        "source_stem": source_stem(task) if "source_stem" in names else "",
        "annotator": annotation.completed_by or "unknown",
        "annotation_id": str(annotation.id),
        "task_id": str(task.id),
        "inner_id": str(task.inner_id),
    }


def source_stem(task: Task) -> str:
    """The name, without suffix, of what *task* is about; ``task-<id>`` if nothing tells it.

    That is the object which brought it, else the first object that its data names.
    """
    key = task.link.key if task.link else _first_key(task.data)
    name = key.rstrip("/").rpartition("/")[2] if key else ""
    stem, dot, _ = name.rpartition(".")
    return (stem if dot and stem else name) or f"task-{task.id}"


def _first_key(data: str) -> str | None:
    try:
        values = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError):
        return None
    for text in islice(_texts(values), _MOST_VALUES):
        found = _URI.fullmatch(text)
        if found:
            return found[1]
    return None


def _texts(value: object) -> Iterator[str]:
    """The strings in *value*, in order and however deep."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, str):
            yield each
        elif isinstance(each, dict):
            waiting += reversed(each.values())
        elif isinstance(each, list):
            waiting += reversed(each)
