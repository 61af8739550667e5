"""A row's bytes → TaskRow, or a Problem in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from msgspec import UNSET, MsgspecError, Raw, ValidationError
from msgspec.json import Decoder

from labelport.errors import FormatError
from labelport.formats import refusing, shapes
from labelport.model import Problem, TaskRow

#: What one :class:`Rows` holds at most.
BLOCK_ROWS = 5_000

#: How much of a chunk is worked on at once.
PIECE_BYTES = 2**20

Body = bytes | Raw

_SHAPE: Callable[[Body], shapes.Shape] = Decoder(shapes.Shape).decode


class Rows(NamedTuple):
    """What one block of an object held."""

    tasks: list[TaskRow]
    problems: list[Problem]
    next_row: int  #: the first row after this block
    end: int  #: the byte after the block's last row; exact in JSONL, about right in arrays


def pieces(chunk: bytes) -> Iterator[bytes]:
    """*chunk* in pieces small enough to be held several times over."""
    for start in range(0, len(chunk), PIECE_BYTES):
        yield chunk[start : start + PIECE_BYTES]


class RowReader:
    """Reads the rows of the object *key*."""

    def __init__(self, key: str, max_row_bytes: int) -> None:
        self.key = key
        self.max_row_bytes = max_row_bytes

    def read(self, bodies: Sequence[Body], row: int, end: int) -> Rows:
        """The rows *bodies*, numbered from *row*; a blank one is only counted."""
        block = b"\n".join(bodies)
        if len(block) <= self.max_row_bytes and not refusing.suspicious(block):
            rows, wrapped = self._rows(bodies, row, end, careful=False)
            if block.count(b'"data"') <= wrapped:
                return rows
        return self._rows(bodies, row, end, careful=True)[0]

    def problem(self, row: int | None, error: FormatError) -> Problem:
        return Problem(self.key, row, error.reason, error.remedy)

    def too_large(self) -> FormatError:
        return FormatError(
            f"larger than {self.max_row_bytes:,} bytes", "Split it, or raise the limit of a row"
        )

    def _rows(
        self, bodies: Sequence[Body], row: int, end: int, *, careful: bool
    ) -> tuple[Rows, int]:
        """The rows, and how many of the tasks came from a row with a ``data`` key."""
        tasks: list[TaskRow] = []
        problems: list[Problem] = []
        bare = 0
        for number, body in enumerate(bodies, row):
            try:
                shape = self._careful_shape(bytes(body)) if careful else _SHAPE(body)
                tasks.append(shapes.task(shape, body, number))
                if shape.data is UNSET:
                    bare += 1
            except (FormatError, MsgspecError, RecursionError) as error:
                text = bytes(body)
                if text and not text.isspace():
                    problems.append(self.problem(number, _explain(text, error)))
        return Rows(tasks, problems, row + len(bodies), end), len(tasks) - bare

    def _careful_shape(self, body: bytes) -> shapes.Shape:
        """The shape of a row out of a block in which something may be wrong."""
        if len(body) > self.max_row_bytes:
            raise self.too_large()
        refusing.refuse(body)
        shape = _SHAPE(body)
        shapes.refuse_repeated(body)
        return shape


def _explain(body: bytes, error: Exception) -> FormatError:
    """What is wrong with a row, in words."""
    match error:
        case FormatError():
            return error
        case ValidationError():
            what, _, where = str(error).replace("`", "").partition(" - at ")
            place = where.removeprefix("$.") or "the row"
            return FormatError(f"{place}: {what[:1].lower()}{what[1:]}", shapes.REMEDY)
        case RecursionError():
            return refusing.too_deep()
    return refusing.explain(body)
