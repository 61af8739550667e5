"""Templates of exported objects' keys, such as ``{project}/{date}/{source_stem}.{annotator}.json``.

Pure: parsed once, checked before it is saved, filled with values that are made safe.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from string import Formatter
from typing import NamedTuple

from labelport.errors import ConfigurationError
from labelport.model import ExportFormat

#: What a template may name, and what each stands for.
FIELDS = {
    "project": "the project's id",
    "date": "when the annotation (of a task: the task) was created, YYYY-MM-DD in UTC",
    "source_stem": "the name of the source object without its folder and suffix",
    "annotator": "who annotated, or unknown",
    "annotation_id": "the annotation's id",
    "task_id": "the task's id",
    "inner_id": "the task's number in its project",
}

_OF_ANNOTATIONS = frozenset(("annotator", "annotation_id"))
#: Without one of these, two objects of a day would have one key.
_TELLING = frozenset(("source_stem", "annotation_id", "task_id", "inner_id"))
_MAX_BYTES = 512
_MAX_VALUE_BYTES = 128
_UNSAFE = re.compile(r"[/\\\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class Piece(NamedTuple):
    """Plain text, and the field that follows it, if any."""

    text: str
    field: str | None


@lru_cache(maxsize=256)
def parse(template: str) -> tuple[Piece, ...]:
    """The pieces of *template*. ConfigurationError: a brace or a field in it makes no sense."""
    try:
        parsed = list(Formatter().parse(template))
    except ValueError as error:
        raise _refused(template, f"{error}; write a brace itself as {{{{ or }}}}") from None
    for _, name, layout, conversion in parsed:
        if name is None:
            continue
        if name not in FIELDS:
            raise _refused(template, f"there is no field {{{name}}}; choose from {_listed(FIELDS)}")
        if layout or conversion:
            raise _refused(template, f"write {{{name}}} alone, without a format")
    return tuple(Piece(text, name) for text, name, _, _ in parsed)


def check_template(template: str, export_format: ExportFormat) -> None:
    """Raise `ConfigurationError` unless *template* makes sound keys for *export_format*."""
    if export_format in (ExportFormat.JSONL, ExportFormat.PARQUET):
        raise ConfigurationError(
            f"key_template is of exports with a key for each object; {export_format} files have "
            "names of their own. Leave key_template out, or export as annotation or task"
        )
    _check_text(template)
    names = {piece.field for piece in parse(template) if piece.field}
    alien = _OF_ANNOTATIONS if export_format is ExportFormat.TASK else frozenset()
    for name in sorted(names & alien):
        raise _refused(
            template, f"a task has no single {{{name}}}; use {{task_id}}, or export as annotation"
        )
    if not names & _TELLING:
        telling = _listed(sorted(_TELLING - alien))
        raise _refused(template, f"objects would share a key; add one of {telling}")


def fill(template: str, values: Mapping[str, str]) -> str:
    """The key that *template* makes of *values*, none of which can break out of its segment."""
    return "".join(text + (safe(values[field]) if field else "") for text, field in parse(template))


def safe(value: str) -> str:
    """*value* as part of one segment of a key: never empty, only dots, or very long."""
    value = _UNSAFE.sub("_", value)
    if not value.strip("."):
        return "_" * max(len(value), 1)
    encoded = value.encode()
    if len(encoded) <= _MAX_VALUE_BYTES:
        return value
    mark = "~" + hashlib.sha256(encoded).hexdigest()[:12]
    return encoded[: _MAX_VALUE_BYTES - len(mark)].decode(errors="ignore") + mark


def _check_text(template: str) -> None:
    """The plain text of *template*: no key outside the prefix, none that HTTP would bend."""
    if not template.strip():
        raise ConfigurationError(
            "key_template is empty; leave it out for the default, or write one such as "
            "{project}/{date}/{source_stem}.{annotator}.json"
        )
    if _UNSAFE.search(template.replace("/", "")):
        raise _refused(template, "it holds a backslash, a control character or no text; remove it")
    if len(template.encode()) > _MAX_BYTES:
        raise _refused(template[:40] + "…", f"it is longer than {_MAX_BYTES} bytes; shorten it")
    for segment in template.split("/"):
        if segment in (".", ".."):
            raise _refused(template, f"the segment {segment!r} leads outside; remove it")
        if not segment:
            raise _refused(template, "it begins or ends with / or has // in it; remove that slash")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in names)


def _refused(template: str, reason: str) -> ConfigurationError:
    return ConfigurationError(f"key_template {template!r}: {reason}")
