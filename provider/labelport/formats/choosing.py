"""Which decoder suits an object's first bytes."""

from __future__ import annotations

from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterator
from typing import Protocol

import msgspec

from labelport.errors import FormatError
from labelport.formats.arrays import Array
from labelport.formats.documents import Document, Foreign
from labelport.formats.lines import Lines
from labelport.formats.rows import Rows

_LINE_SUFFIXES = (".jsonl", ".ndjson")

#: How files that people take for JSON begin, what they are, and what to do.
_FOREIGN = (
    (BOM_UTF16_LE, "UTF-16 text", "Save it as UTF-8"),
    (BOM_UTF16_BE, "UTF-16 text", "Save it as UTF-8"),
    (b"\x1f\x8b", "compressed with gzip", "Store it uncompressed"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "Store it uncompressed"),
    (b"PK\x03\x04", "a ZIP archive", "Store the files in it, uncompressed"),
    (b"PAR1", "a Parquet file", "Write it as JSONL"),
)


class RowDecoder(Protocol):
    """Turns an object's bytes into rows, one chunk at a time.

    Exhaust what ``feed`` returns before feeding more: nothing is read until it is iterated.
    """

    resumable: bool  #: whether reading may go on at a block's ``end``, see resume_lines

    def feed(self, chunk: bytes) -> Iterator[Rows]:
        """The rows that *chunk* completes, in order; it may be of any size."""

    def finish(self) -> Iterator[Rows]:
        """The rows and problems that only the object's end reveals. Call it once."""


def decoder(key: str, head: bytes, *, complete: bool, max_row_bytes: int) -> RowDecoder:
    """The decoder for an object that begins with *head*, which must still be fed.

    *head* is the whole object (*complete*) or its first MiB at least.
    """
    error = _foreign(head)
    if error:
        return Foreign(key, error)
    text = head.removeprefix(BOM_UTF8).lstrip()
    if not text or _in_lines(key, text, complete=complete):
        return Lines(key, max_row_bytes=max_row_bytes)
    if text.startswith(b"["):
        return Array(key, max_row_bytes=max_row_bytes)
    if text.startswith(b"{"):
        return Document(key, max_row_bytes=max_row_bytes)
    begins = text[:20].decode(errors="replace")
    return Foreign(
        key,
        FormatError(f"not JSON tasks: it begins with {begins!r}", "Store a JSON object or array"),
    )


def resume_lines(key: str, *, row: int, offset: int, max_row_bytes: int) -> RowDecoder:
    """The decoder for the bytes of a JSONL object from *offset* on, where line *row* begins.

    Both as a block's ``next_row`` and ``end`` gave them.
    """
    return Lines(key, row=row, offset=offset, max_row_bytes=max_row_bytes)


def _foreign(head: bytes) -> FormatError | None:
    for signature, what, remedy in _FOREIGN:
        if head.startswith(signature):
            return FormatError(f"not JSON: {what}", remedy)
    return None


def _in_lines(key: str, text: bytes, *, complete: bool) -> bool:
    """Whether *text*, which begins with its first row, holds one row a line.

    In one JSON document, a line begins with ``{`` only after ``:``, ``[`` or ``,``.
    """
    first, _, rest = text.partition(b"\n")
    first, rest = first.rstrip(), rest.lstrip()
    if key.lower().endswith(_LINE_SUFFIXES):
        return first not in (b"[", b"{")
    if rest.startswith(b"{") and not first.endswith((b":", b"[", b",")):
        return True
    if rest:
        return text.startswith(b"{") and _is_json(first)
    return text.startswith(b"{") and not complete


def _is_json(text: bytes) -> bool:
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True
