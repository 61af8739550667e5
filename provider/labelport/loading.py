"""Task files become batches: small objects read many at a time, large ones streamed row by row."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from itertools import chain

from labelport.catalog.batches import Batch, Piece, Target
from labelport.catalog.objects import KnownObject
from labelport.comparing import Found
from labelport.errors import FormatError, ObjectNotFound, StoreError
from labelport.formats import RowDecoder, Rows, decoder, resume_lines
from labelport.model import ByteRange, ObjectState, Problem, TaskRow
from labelport.stores import ObjectStream, Store

#: Objects up to this size are read whole, many at once; larger ones are streamed, one at a time.
_SMALL_BYTES = 2**20
#: A batch is full with so many rows or bytes of data.
_BATCH_ROWS = 5_000
_BATCH_BYTES = 8 * 2**20


@dataclass(frozen=True)
class Limits:
    """What reading task files may cost."""

    max_object_bytes: int | None = None  #: larger objects become error rows; None: any size
    max_row_bytes: int = 16 * 2**20  #: larger rows become error rows
    concurrency: int = 32  #: small objects read at once
    max_bytes_ahead: int = 64 * 2**20  #: of small objects read and not yet saved
    outage_after: int = 20  #: so many objects in a row that cannot be read stop the sync


class Loader:
    """Reads the objects that one shard has to import. What is wrong with one is an error row."""

    def __init__(self, store: Store, limits: Limits) -> None:
        self._store = store
        self._limits = limits
        self._failed_in_a_row = 0

    async def batches(self, found: Found) -> AsyncGenerator[Batch, None]:
        """The rows of *found*'s objects in order, in batches; the last one is *found*'s own.

        So the checkpoint moves only when everything before it is saved.

        Raises:
            StoreError: object after object could not be read, so it is the store that fails.
        """
        filling = _Filling()
        async with aclosing(self._pieces(found)) as pieces:
            async for piece, problems in pieces:
                if not filling.has_room_for(piece):
                    yield filling.into(Batch())
                    filling = _Filling()
                filling.add(piece, problems)
        yield filling.into(found.batch)

    async def _pieces(self, found: Found) -> AsyncGenerator[tuple[Piece, list[Problem]], None]:
        """Pieces in the objects' order: reads run ahead, what they bring is used in turn."""
        reading: deque[tuple[Target, asyncio.Task[bytes | StoreError | FormatError]]] = deque()
        ahead = 0
        try:
            new = ((Target(meta), None) for meta in found.new)
            for target, known in chain(new, found.again):
                small = known is None and target.meta.size <= self._small_bytes
                while reading and (
                    not small
                    or len(reading) >= self._limits.concurrency
                    or ahead + target.meta.size > self._limits.max_bytes_ahead
                ):
                    first, task = reading.popleft()
                    ahead -= first.meta.size
                    for item in self._whole(first, await task):
                        yield item
                if small:
                    ahead += target.meta.size
                    reading.append((target, asyncio.create_task(self._read(target))))
                    continue
                async with aclosing(self._streamed(target, known)) as pieces:
                    async for item in pieces:
                        yield item
            for target, task in reading:
                for item in self._whole(target, await task):
                    yield item
        finally:
            for _, task in reading:
                task.cancel()
            await asyncio.gather(*(task for _, task in reading), return_exceptions=True)

    @property
    def _small_bytes(self) -> int:
        return min(_SMALL_BYTES, self._limits.max_object_bytes or _SMALL_BYTES)

    async def _read(self, target: Target) -> bytes | StoreError | FormatError:
        try:
            body, _ = await self._store.read(target.meta.key, max_bytes=2 * _SMALL_BYTES)
        except (StoreError, FormatError) as error:
            return error
        return body

    def _whole(
        self, target: Target, body: bytes | StoreError | FormatError
    ) -> Iterable[tuple[Piece, list[Problem]]]:
        """The pieces of an object that was read at once."""
        progress = _Progress(target, None)
        if not isinstance(body, bytes):
            yield progress.end(self._problem(target, body))
            return
        self._failed_in_a_row = 0
        rows = decoder(
            target.meta.key, body, complete=True, max_row_bytes=self._limits.max_row_bytes
        )
        for block in (*rows.feed(body), *rows.finish()):
            yield progress.add(block, resumable=False)
        yield progress.end()

    async def _streamed(
        self, target: Target, known: KnownObject | None
    ) -> AsyncGenerator[tuple[Piece, list[Problem]], None]:
        """The pieces of an object too large to hold, or one that goes on where it was left."""
        meta, limit = target.meta, self._limits.max_object_bytes
        progress = _Progress(target, known)
        if limit is not None and meta.size > limit:
            yield progress.end(_too_large(meta.key, meta.size, limit))
            return
        offset = known.byte_offset if known else 0
        window = ByteRange(offset) if offset else None
        try:
            if not offset or offset < meta.size:
                async with self._store.open(meta.key, window, etag=meta.etag) as stream:
                    async for block, resumable in self._blocks(target, stream, progress, offset):
                        yield progress.add(block, resumable=resumable)
        except (StoreError, FormatError) as error:
            yield progress.end(self._problem(target, error))
            return
        self._failed_in_a_row = 0
        yield progress.end()

    async def _blocks(
        self, target: Target, stream: ObjectStream, progress: _Progress, offset: int
    ) -> AsyncGenerator[tuple[Rows, bool], None]:
        key, limit = target.meta.key, self._limits.max_row_bytes
        rows: RowDecoder | None = None
        if offset:
            rows = resume_lines(key, row=progress.row, offset=offset, max_row_bytes=limit)
        head = b""
        async for chunk in stream:
            if rows is None:
                head += chunk
                if len(head) < _SMALL_BYTES:
                    continue
                rows, chunk, head = (
                    decoder(key, head, complete=False, max_row_bytes=limit),
                    head,
                    b"",
                )
            for block in rows.feed(chunk):
                yield block, rows.resumable
        if rows is None:
            rows = decoder(key, head, complete=True, max_row_bytes=limit)
            for block in rows.feed(head):
                yield block, rows.resumable
        for block in rows.finish():
            yield block, rows.resumable

    def _problem(self, target: Target, error: StoreError | FormatError) -> Problem:
        """An object that cannot be read is a problem of its own, unless they all are."""
        if isinstance(error, FormatError):
            return Problem(target.meta.key, None, error.reason, error.remedy)
        self._failed_in_a_row += 1
        if self._failed_in_a_row >= self._limits.outage_after:
            raise error
        remedy = (
            "It was deleted after it had been listed; sync again."
            if isinstance(error, ObjectNotFound)
            else "Put right what the store says, then sync again."
        )
        return Problem(target.meta.key, None, f"{type(error).__name__}: {error}", remedy)


class _Progress:
    """How far one object has come, as pieces tell it."""

    def __init__(self, target: Target, known: KnownObject | None) -> None:
        self._target = target
        self.row = known.rows_done if known else 0
        self._skip = self.row
        self._failed = known.rows_failed if known else 0
        self._offset = known.byte_offset if known else 0

    def add(self, block: Rows, *, resumable: bool) -> tuple[Piece, list[Problem]]:
        """The piece that *block* makes, without the rows that were saved before."""
        tasks: list[TaskRow] = block.tasks
        problems = block.problems
        if block.next_row and self._skip:
            tasks = [task for task in tasks if task.row >= self._skip]
            problems = [p for p in problems if p.row is None or p.row >= self._skip]
        self._failed += len(problems)
        self.row = max(self.row, block.next_row)
        self._offset = block.end if resumable else 0
        return self._piece(ObjectState.PARTIAL, tasks), problems

    def end(self, problem: Problem | None = None) -> tuple[Piece, list[Problem]]:
        """The object's last piece: done, or in error if any row or the object itself failed."""
        problems = [problem] if problem else []
        self._failed += len(problems)
        state = ObjectState.ERROR if self._failed else ObjectState.DONE
        return self._piece(state, []), problems

    def _piece(self, state: ObjectState, tasks: list[TaskRow]) -> Piece:
        return Piece(self._target, state, tasks, self.row, self._failed, self._offset)


class _Filling:
    """A batch being filled, with at most one piece of each object."""

    def __init__(self) -> None:
        self._pieces: dict[int, Piece] = {}
        self._problems: list[Problem] = []
        self._rows = self._bytes = 0

    def has_room_for(self, piece: Piece) -> bool:
        rows = self._rows + len(piece.tasks)
        return not self._rows or (rows <= _BATCH_ROWS and self._bytes < _BATCH_BYTES)

    def add(self, piece: Piece, problems: list[Problem]) -> None:
        before = self._pieces.get(id(piece.target))
        tasks = [*before.tasks, *piece.tasks] if before and before.tasks else piece.tasks
        self._pieces[id(piece.target)] = piece._replace(tasks=tasks)
        self._problems += problems
        self._rows += len(piece.tasks)
        self._bytes += sum(len(task.data) for task in piece.tasks)

    def into(self, batch: Batch) -> Batch:
        """*batch* with all that was added here."""
        batch.pieces = list(self._pieces.values())
        batch.problems = [*batch.problems, *self._problems]
        return batch


def _too_large(key: str, size: int, limit: int) -> Problem:
    return Problem(
        key,
        None,
        f"the object has {size} bytes, more than max_object_bytes={limit}",
        "Split it, or raise max_object_bytes.",
    )
