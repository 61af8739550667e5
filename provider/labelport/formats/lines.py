"""JSONL: one row a line, resumable at the end of any block."""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Iterator

from labelport.errors import FormatError
from labelport.formats.rows import BLOCK_ROWS, RowReader, Rows, pieces


class Lines:
    """Reads JSONL from byte *offset*, where line *row* begins (both counted from 0)."""

    resumable = True

    def __init__(self, key: str, *, max_row_bytes: int, row: int = 0, offset: int = 0) -> None:
        self._reader = RowReader(key, max_row_bytes)
        self._row = row
        self._end = offset  #: where line ``_row`` begins
        self._rest = bytearray()  #: the beginning of line ``_row``
        self._skipped = 0  #: bytes of line ``_row``, which is too large, that were let go
        self._empty = offset == 0

    def feed(self, chunk: bytes) -> Iterator[Rows]:
        for piece in pieces(chunk):
            cut = piece.rfind(b"\n") + 1
            if self._skipped and cut:
                yield self._oversized(piece[: piece.index(b"\n") + 1])
                piece = piece[piece.index(b"\n") + 1 :]
                cut = piece.rfind(b"\n") + 1
            if cut:
                block = bytes(self._rest) + piece[:cut]
                self._rest.clear()
                yield from self._read(block)
            self._keep(piece[cut:])

    def finish(self) -> Iterator[Rows]:
        if self._skipped:
            yield self._oversized(b"")
        elif self._rest:
            yield from self._read(bytes(self._rest))
        if self._empty:
            error = FormatError("empty: the object holds no row", "Write one JSON object a line")
            yield Rows([], [self._reader.problem(None, error)], self._row, self._end)

    def _keep(self, beginning: bytes) -> None:
        """Wait for the rest of a line, or let the line go as soon as it is too large."""
        if self._skipped:
            self._skipped += len(beginning)
            return
        self._rest += beginning
        if len(self._rest) > self._reader.max_row_bytes + len(BOM_UTF8):
            self._skipped = len(self._rest)
            self._rest.clear()

    def _oversized(self, last: bytes) -> Rows:
        """The problem of a line that was let go, whose *last* bytes have come."""
        problem = self._reader.problem(self._row, self._reader.too_large())
        self._row += 1
        self._end += self._skipped + len(last)
        self._skipped = 0
        self._empty = False
        return Rows([], [problem], self._row, self._end)

    def _read(self, block: bytes) -> Iterator[Rows]:
        """The rows of whole lines, the last of which may lack its newline."""
        stop = self._end + len(block)
        lines = block.removesuffix(b"\n").split(b"\n")
        if self._end == 0:
            lines[0] = lines[0].removeprefix(BOM_UTF8)
            self._end += block.startswith(BOM_UTF8) * len(BOM_UTF8)
        for start in range(0, len(lines), BLOCK_ROWS):
            some = lines[start : start + BLOCK_ROWS]
            self._end = min(stop, self._end + sum(map(len, some)) + len(some))
            rows = self._reader.read(some, self._row, self._end)
            self._row = rows.next_row
            if rows.tasks or rows.problems:
                self._empty = False
                yield rows
