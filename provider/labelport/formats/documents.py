"""An object that holds one task, or nothing that could be a task."""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Iterator
from dataclasses import replace

from labelport.errors import FormatError
from labelport.formats.rows import RowReader, Rows


class Document:
    """Reads one JSON object, however many lines it takes: one task, row 0."""

    resumable = False

    def __init__(self, key: str, *, max_row_bytes: int) -> None:
        self._reader = RowReader(key, max_row_bytes)
        self._text = bytearray()
        self._size = 0

    def feed(self, chunk: bytes) -> Iterator[Rows]:
        self._size += len(chunk)
        if self._size <= self._reader.max_row_bytes + len(BOM_UTF8):
            self._text += chunk
        else:
            self._text.clear()
        return iter(())

    def finish(self) -> Iterator[Rows]:
        text = bytes(self._text).removeprefix(BOM_UTF8)
        if len(self._text) < self._size or len(text) > self._reader.max_row_bytes:
            problems = [self._reader.problem(None, self._reader.too_large())]
            yield Rows([], problems, 1, self._size)
            return
        rows = self._reader.read([text], 0, self._size)
        yield rows._replace(problems=[replace(each, row=None) for each in rows.problems])


class Foreign:
    """Reads an object that is no JSON: one problem, whatever follows."""

    resumable = False

    def __init__(self, key: str, error: FormatError) -> None:
        self._problem = RowReader(key, 0).problem(None, error)
        self._size = 0

    def feed(self, chunk: bytes) -> Iterator[Rows]:
        self._size += len(chunk)
        return iter(())

    def finish(self) -> Iterator[Rows]:
        yield Rows([], [self._problem], 0, self._size)
