"""A JSON array of any size, read in blocks of whole elements."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from msgspec import DecodeError, Raw
from msgspec.json import Decoder

from labelport.errors import FormatError
from labelport.formats import refusing
from labelport.formats.elements import ElementScan
from labelport.formats.rows import BLOCK_ROWS, PIECE_BYTES, Body, RowReader, Rows, pieces
from labelport.formats.seams import Seam

_ELEMENTS = Decoder(list[Raw])
_ELEMENT = Decoder(Raw)
#: So many blocks are waited for a comma that looks right before every byte is searched.
_PATIENCE = 8
_REMEDY = "Repair the object; a JSON library writes it correctly"


class Array:
    """Reads the rows of an array.

    A block ends at the last comma that looks like one between elements. The parser proves it:
    between brackets, nothing but whole elements is valid. Where the look deceives,
    :class:`ElementScan` finds the commas, at a fraction of the speed.
    """

    resumable = False

    def __init__(self, key: str, *, max_row_bytes: int, block_bytes: int = PIECE_BYTES) -> None:
        self._reader = RowReader(key, max_row_bytes)
        self._block_bytes = block_bytes  #: when to look for rows, unless the object ends before
        self._buffer = bytearray()  #: from the beginning of element ``_row`` on
        self._row = 0
        self._end = 0  #: where ``_buffer`` begins in the object
        self._seam = Seam()
        self._deceived = False  #: no guess before the next comma is found
        self._scan = ElementScan()
        self._opened = False
        self._skipping = False  #: element ``_row`` is too large and let go
        self._closed = False
        self._stopped = False  #: what follows cannot be read, and this is told

    def feed(self, chunk: bytes) -> Iterator[Rows]:
        for piece in pieces(chunk):
            self._buffer += piece
            # Behind the end, everything is looked at; inside a row that is let go, nothing is kept.
            if len(self._buffer) >= self._block_bytes or self._skipping or self._done:
                yield from self._advance()

    def finish(self) -> Iterator[Rows]:
        yield from self._advance()
        if not self._done:
            yield from self._search()
        if not self._done:
            yield from self._cut_off()
        yield from self._after()

    @property
    def _done(self) -> bool:
        return self._closed or self._stopped

    def _advance(self) -> Iterator[Rows]:
        """The rows that are whole in the buffer, save a few that wait for the next block."""
        if not self._opened:
            self._drop(self._buffer.find(b"[") + 1)
            self._opened = self._end > 0
            if not self._opened:  # blanks so far
                return
        guess = None if self._done else self._guess()
        if guess is not None:
            yield from self._rows(guess)
        elif not self._done:
            yield from self._search()
        if self._done:
            yield from self._after()

    def _guess(self) -> list[Raw] | None:
        """The elements up to the last comma that looks right, or None if it is not one.

        An empty list means: wait, the next chunk may well bring such a comma.
        """
        if self._deceived or self._skipping or len(self._buffer) > self._reader.max_row_bytes:
            return None
        comma = self._seam.last(self._buffer)
        if comma is None and len(self._buffer) < _PATIENCE * self._block_bytes:
            return []
        elements = None if comma is None else _parse(self._buffer[:comma])
        if comma is None or elements is None:
            self._deceived = True  # until a search has found the next comma
            return None
        self._drop(comma + 1)
        self._scan = ElementScan()
        return elements

    def _search(self) -> Iterator[Rows]:
        """The elements up to the last comma or the array's end, found without a guess."""
        marks = list(self._scan.separators(self._buffer))
        if self._scan.closed is not None:
            marks.append(self._scan.closed)
            self._closed = True
        elements = [bytes(self._buffer[a + 1 : b]) for a, b in pairwise([-1, *marks])]
        if marks:
            self._drop(marks[-1] + 1)
            self._deceived = False
            self._seam = Seam()
        if elements and self._skipping:
            self._skipping = False
            yield self._let_go(self._reader.too_large())
            del elements[0]
        if not (self._closed and self._row == 0 and len(elements) == 1 and not elements[0].strip()):
            yield from self._sound_rows(elements)
        self._skip_too_large()

    def _skip_too_large(self) -> None:
        if self._skipping or len(self._buffer) > self._reader.max_row_bytes:
            self._skipping = True
            self._drop(self._scan.position)

    def _sound_rows(self, elements: list[bytes]) -> Iterator[Rows]:
        """The rows up to the first element that is broken, behind which nothing is certain."""
        sound = len(elements)
        if len(_parse(b",".join(elements)) or ()) != sound:
            sound = next((i for i, each in enumerate(elements) if self._broken(each)), sound)
        yield from self._rows(elements[:sound])
        if sound < len(elements):
            error = refusing.explain(elements[sound].strip())
            yield self._stop(f"{error.reason}; nothing from this row on can be read")

    def _broken(self, element: bytes) -> bool:
        """Whether *element* may end elsewhere than it seems to."""
        if len(element) > self._reader.max_row_bytes:
            return False
        try:
            _ELEMENT.decode(element)
        except (DecodeError, RecursionError):
            return not refusing.whole(element)
        return False

    def _cut_off(self) -> Iterator[Rows]:
        """What is left when the object ends before its array does."""
        rest = bytes(self._buffer)
        if self._skipping:
            yield self._stop(f"{self._reader.too_large().reason}, and the object ends inside it")
        elif rest.strip() and self._broken(rest):
            yield self._stop(
                f"the object ends inside this row: {refusing.explain(rest.strip()).reason}"
            )
        else:
            yield from self._rows([rest] if rest.strip() else [])
            yield self._stop("the array is never closed: the object is cut off", row=False)

    def _after(self) -> Iterator[Rows]:
        """Nothing but blanks may follow the array."""
        if self._buffer.strip() and not self._stopped:
            yield self._stop("something follows the end of the array", row=False)
        self._drop(len(self._buffer))

    def _rows(self, bodies: Sequence[Body]) -> Iterator[Rows]:
        for start in range(0, len(bodies), BLOCK_ROWS):
            rows = self._reader.read(bodies[start : start + BLOCK_ROWS], self._row, self._end)
            self._row = rows.next_row
            yield rows

    def _stop(self, reason: str, *, row: bool = True) -> Rows:
        """Tell why nothing more is read, at element ``_row`` or of the object as a whole."""
        self._stopped = True
        problem = self._reader.problem(self._row if row else None, FormatError(reason, _REMEDY))
        return Rows([], [problem], self._row, self._end)

    def _let_go(self, error: FormatError) -> Rows:
        problem = self._reader.problem(self._row, error)
        self._row += 1
        return Rows([], [problem], self._row, self._end)

    def _drop(self, count: int) -> None:
        del self._buffer[:count]
        self._end += count
        self._scan.drop(count)


def _parse(elements: bytes | bytearray) -> list[Raw] | None:
    """The elements, unless the text is no whole sequence of them."""
    try:
        return _ELEMENTS.decode(b"".join((b"[", elements, b"]")))
    except (DecodeError, RecursionError):
        return None
