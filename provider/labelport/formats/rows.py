"""A row's bytes → TaskRow, or a Problem in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from msgspec import MsgspecError, Raw, ValidationError
from msgspec.json import Decoder

from labelport.errors import FormatError
from labelport.formats import refusing, shapes
from labelport.model import Problem, TaskRow

#: What one :class:`Rows` holds at most.
BLOCK_ROWS = 5_000

#: How much of a chunk is worked on at once: little enough for a processor's cache.
PIECE_BYTES = 2**18

Body = bytes | Raw

_FAULTS = (FormatError, MsgspecError, RecursionError)

_PLAIN: Callable[[Body], shapes.Plain] = Decoder(shapes.Plain).decode
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
        tasks = self._quick(bodies, row)
        problems: list[Problem] = []
        if tasks is None:
            tasks = self._careful(bodies, row, problems)
        return Rows(tasks, problems, row + len(bodies), end)

    def problem(self, row: int | None, error: FormatError) -> Problem:
        return Problem(self.key, row, error.reason, error.remedy)

    def too_large(self) -> FormatError:
        return FormatError(
            f"larger than {self.max_row_bytes:,} bytes", "Split it, or raise the limit of a row"
        )

    def _quick(self, bodies: Sequence[Body], row: int) -> list[TaskRow] | None:
        """The tasks of *bodies*, or None if any of them needs a closer look."""
        block = b",".join(bodies)
        if len(block) > self.max_row_bytes or refusing.suspicious(block):
            return None
        try:
            return _plain_tasks(block, bodies, row)
        except ValidationError:  # the first row has other keys, most likely
            pass
        except _FAULTS:
            return None
        try:
            return _tasks(block, bodies, row)
        except _FAULTS:
            return None

    def _careful(self, bodies: Sequence[Body], row: int, problems: list[Problem]) -> list[TaskRow]:
        """The tasks of those *bodies* that have no fault; each other one is added to *problems*."""
        tasks: list[TaskRow] = []
        for number, body in enumerate(map(bytes, bodies), row):
            try:
                tasks.append(shapes.task(self._careful_shape(body), body, number))
            except _FAULTS as error:
                if body and not body.isspace():
                    problems.append(self.problem(number, _explain(body.strip(), error)))
        return tasks

    def _careful_shape(self, body: bytes) -> shapes.Shape:
        """The shape of a row out of a block in which something may be wrong."""
        if len(body) > self.max_row_bytes:
            raise self.too_large()
        body = body.strip()
        refusing.refuse(body)
        shape = _SHAPE(body)
        shapes.refuse_repeated(body)
        return shape


def _plain_tasks(block: bytes, bodies: Sequence[Body], row: int) -> list[TaskRow] | None:
    found = [_PLAIN(body) for body in bodies]
    return None if block.count(b'"data"') > len(found) else shapes.plain_tasks(found, row)


def _tasks(block: bytes, bodies: Sequence[Body], row: int) -> list[TaskRow] | None:
    found = [_SHAPE(body) for body in bodies]
    if shapes.repeated(block, found):
        return None
    return [
        shapes.task(shape, body, number)
        for number, (shape, body) in enumerate(zip(found, bodies, strict=True), row)
    ]


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
