"""Saving one batch of an import: objects, tasks, labels, error rows and progress, all or nothing.

The shard's row is the fence: a worker that lost its shard fails the batch and has written nothing.
Two workers that meet at one key conflict on a unique constraint; the second looks again at what
is there and saves the rest. So it does where two rows of one source make its task at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import repeat
from typing import NamedTuple

import sqlalchemy as sa

from labelport.catalog import bulk, events, objects, runs, shards, source_tasks
from labelport.catalog.clock import now
from labelport.catalog.database import Catalog
from labelport.catalog.objects import SavedRow
from labelport.catalog.schema import import_objects, projects, tasks
from labelport.catalog.source_tasks import same_json
from labelport.errors import SyncLost
from labelport.model import (
    UNDEFINED_NAME,
    Counters,
    ObjectMeta,
    ObjectState,
    Problem,
    Shard,
    Storage,
    TaskRow,
)


@dataclass(slots=True)
class Target:
    """An object being imported. Saving its first batch gives it an id."""

    meta: ObjectMeta
    id: int | None = None
    revisited: bool = False  #: some of its rows may be tasks already
    refresh: bool = False  #: then their data is replaced, where nobody has annotated it
    refused: frozenset[int] = frozenset()  #: rows that could not join their source's task


class Piece(NamedTuple):
    """One object's share of a batch: rows, and where the object stands once they are saved."""

    target: Target
    state: ObjectState
    tasks: Sequence[TaskRow]
    rows_done: int
    rows_failed: int = 0
    byte_offset: int = 0


@dataclass
class Batch:
    """What one transaction saves, with at most one piece of each object.

    Without *checkpoint* the shard's page is not finished.
    """

    pieces: list[Piece] = field(default_factory=list)
    media: list[ObjectMeta] = field(default_factory=list)  #: new objects that are tasks themselves
    problems: list[Problem] = field(default_factory=list)
    missing: list[int] = field(default_factory=list)
    returned: list[int] = field(default_factory=list)
    counters: Counters = field(default_factory=Counters)
    checkpoint: str | None = None


#: How a driver wants a datetime, which is in UTC.
_Timestamp = Callable[[datetime | None], datetime | str | None]
#: State, rows done, rows failed, byte offset.
_Standing = tuple[str, int, int, int]
#: Object id, row group, row.
_RowId = tuple[int, int, int]


class _Work(NamedTuple):
    """A batch, once it is known which of its rows are tasks already."""

    inserts: list[tuple[Target, TaskRow]]
    updates: list[tuple[int, str]]  #: task id, data
    problems: list[Problem]
    joins: list[tuple[int, tuple[Target, TaskRow]]]  #: a task that exists gets annotations


class BatchWriter:
    """Saves the batches of one shard, in order, for the owner the shard was taken with."""

    def __init__(
        self, catalog: Catalog, storage: Storage, shard: Shard, *, max_errors: int | None = None
    ) -> None:
        self._catalog = catalog
        self._storage = storage
        self._shard = shard
        self._max_errors = max_errors
        self._overlap = self._maximum_annotations()

    def save(self, batch: Batch) -> Counters:
        """Save *batch*, wholly or not at all, and return what it added to the shard's counters.

        Raises:
            SyncLost: another worker or run owns the shard; nothing was written.
            TooManyErrors: the batch is saved, and the run has now more errors than it may.
        """
        while True:
            try:
                added = self._try(batch)
            except bulk.Conflict:
                self._look_again(batch)
            else:
                runs.check_errors(
                    self._catalog, self._storage, self._shard.run_id, added, self._max_errors
                )
                return added

    def _try(self, batch: Batch) -> Counters:
        work = self._prepare(batch)
        pieces = [_standing(piece) if piece.target.refused else piece for piece in batch.pieces]
        inner_id = self._reserve_inner_ids(len(batch.media) + len(work.inserts))
        added = batch.counters + Counters(
            created=len(batch.media) + len(work.inserts),
            updated=len(work.updates),
            errors=len(work.problems),
        )
        with self._catalog.begin() as connection:
            if not bulk.lock_parents(
                connection, project_id=self._storage.project_id, storage_id=self._storage.id
            ):
                raise SyncLost(f"storage {self._storage.name} was removed during its sync")
            if work.joins:
                events.lock(connection, [self._storage.project_id])
            self._save_media(connection, batch.media, inner_id)
            ids = self._save_objects(connection, pieces)
            source_tasks.count_in(connection, work.joins)
            self._save_labels(connection, work.joins)
            self._save_tasks(connection, work.inserts, ids, inner_id + len(batch.media))
            _replace_data(connection, work.updates)
            self._save_problems(connection, work.problems)
            objects.mark(connection, batch.missing, exists=False)
            objects.mark(connection, batch.returned, exists=True)
            if not shards.advance(connection, self._shard, added, batch.checkpoint):
                raise SyncLost(
                    f"run {self._shard.run_id} no longer owns shard {self._shard.index} of "
                    f"storage {self._storage.name}"
                )
        for piece in batch.pieces:
            piece.target.id = ids[id(piece.target)]
        return added

    def _prepare(self, batch: Batch) -> _Work:
        """Tell the rows to insert from those to replace, reading only what may exist already."""
        work = _Work([], [], list(batch.problems), [])
        with self._catalog.read() as connection:
            saved = _saved_rows(connection, [p for p in batch.pieces if p.target.revisited])
        for target, _, rows, *_ in batch.pieces:
            if target.revisited:
                for task in rows:
                    row = saved.get((target.id or 0, task.row_group, task.row))
                    _sort_in(work, target, task, row)
            elif len(rows) == 1:
                work.inserts.append((target, rows[0]))
            else:
                work.inserts.extend([(target, task) for task in rows])
        if any(task.source_task for _, task in work.inserts):
            return self._settle(work)
        return work

    def _settle(self, work: _Work) -> _Work:
        """Let rows of one source share its task, made by an earlier row of the batch or before."""
        with self._catalog.read() as connection:
            inserts, joins, problems = source_tasks.settle(
                connection, self._storage.project_id, work.inserts
            )
        return _Work(inserts, work.updates, [*work.problems, *problems], joins)

    def _reserve_inner_ids(self, count: int) -> int:
        """The first of *count* numbers that are ours; a batch that fails wastes them.

        In a transaction of its own: held to the batch's end, the project's row would make the
        workers of one project wait for each other.
        """
        if not count:
            return 0
        with self._catalog.begin() as connection:
            following: int = connection.execute(
                projects.update()
                .where(projects.c.id == self._storage.project_id)
                .values(next_inner_id=projects.c.next_inner_id + count)
                .returning(projects.c.next_inner_id)
            ).scalar_one()
        return following - count

    def _save_media(
        self, connection: sa.Connection, media: Sequence[ObjectMeta], inner_id: int
    ) -> None:
        """Insert objects, and of each a task that the database itself makes from its key."""
        if not media:
            return
        ids = bulk.reserve_ids(connection, "import_objects", len(media))
        self._insert_objects(
            connection, zip(ids, media, repeat((ObjectState.DONE.value, 0, 0, 0)), strict=False)
        )
        block = {"ids_first": ids[0], "ids_last": ids[-1]}
        connection.execute(
            sa.text(_MEDIA_DIALECTS[connection.dialect.name]),
            {
                "project": self._storage.project_id,
                "name": UNDEFINED_NAME,
                "start": self._storage.uri(""),
                "overlap": self._overlap,
                "inner_id": inner_id,
                **(block if connection.dialect.name == "sqlite" else {"ids": list(ids)}),
            },
        )

    def _save_objects(self, connection: sa.Connection, pieces: Sequence[Piece]) -> dict[int, int]:
        """Insert the objects that are new, move on the others. Ids by ``id(target)``."""
        new = [piece for piece in pieces if piece.target.id is None]
        reserved = bulk.reserve_ids(connection, "import_objects", len(new))
        self._insert_objects(
            connection,
            (
                (number, target.meta, (state.value, done, failed, offset))
                for number, (target, state, _, done, failed, offset) in zip(
                    reserved, new, strict=True
                )
            ),
        )
        ids = {id(piece.target): number for number, piece in zip(reserved, new, strict=True)}
        old = [piece for piece in pieces if piece.target.id is not None]
        ids |= {id(piece.target): piece.target.id for piece in old if piece.target.id is not None}
        _move_on(connection, old)
        return ids

    def _insert_objects(
        self, connection: sa.Connection, found: Iterable[tuple[int, ObjectMeta, _Standing]]
    ) -> None:
        storage, when = self._storage.id, _timestamps(connection)
        now_text = when(connection.scalar(sa.select(now())))
        bulk.insert(
            connection,
            "import_objects",
            _OBJECT_COLUMNS,
            (
                (
                    *(number, storage, meta.key, *standing),
                    *(meta.etag, meta.size, when(meta.modified), now_text),
                )
                for number, meta, standing in found
            ),
        )

    def _save_tasks(
        self,
        connection: sa.Connection,
        inserts: Sequence[tuple[Target, TaskRow]],
        object_ids: dict[int, int],
        first_inner_id: int,
    ) -> None:
        labelled = any(task.annotations or task.predictions for _, task in inserts)
        # Only labels need to know their tasks' ids beforehand, and only they name a source.
        ids: Sequence[int] = bulk.reserve_ids(connection, "tasks", len(inserts)) if labelled else ()
        bulk.insert(
            connection,
            "tasks",
            (("id", "source_task", *_TASK_COLUMNS) if labelled else _TASK_COLUMNS),
            self._task_values(inserts, object_ids, first_inner_id, ids),
        )
        if labelled:
            self._save_labels(connection, list(zip(ids, inserts, strict=True)))

    def _task_values(
        self,
        inserts: Sequence[tuple[Target, TaskRow]],
        object_ids: dict[int, int],
        inner_id: int,
        ids: Sequence[int],
    ) -> Iterator[tuple[object, ...]]:
        project, overlap = self._storage.project_id, self._overlap
        for number, (target, task) in enumerate(inserts, inner_id):
            row, data, annotations, predictions, allow_skip, meta, row_group, source = task
            done = sum(not a.was_cancelled for a in annotations) if annotations else 0
            values = (
                *(project, number, data, meta, overlap, allow_skip, done >= overlap, done),
                *(len(annotations) - done, len(predictions)),
                *(object_ids[id(target)], row_group, row),
            )
            yield (ids[number - inner_id], source, *values) if ids else values

    def _save_labels(
        self, connection: sa.Connection, saved: Sequence[tuple[int, tuple[Target, TaskRow]]]
    ) -> None:
        project, when, at = self._storage.project_id, _timestamps(connection), datetime.now(UTC)
        bulk.insert(
            connection,
            "annotations",
            _ANNOTATION_COLUMNS,
            (
                (
                    *(number, project, *annotation[:5]),
                    when(annotation.created_at or at),
                    when(annotation.updated_at or annotation.created_at or at),
                )
                for number, (_, task) in saved
                for annotation in task.annotations
            ),
        )
        bulk.insert(
            connection,
            "predictions",
            ("task_id", "project_id", "result", "score", "model_version"),
            (
                (number, project, *prediction)
                for number, (_, task) in saved
                for prediction in task.predictions
            ),
        )

    def _save_problems(self, connection: sa.Connection, problems: Sequence[Problem]) -> None:
        bulk.insert(
            connection,
            "import_errors",
            ("storage_id", "run_id", "key", "row_group", "row_index", "reason", "remedy"),
            (
                (
                    *(self._storage.id, self._shard.run_id, _storable(problem.key)),
                    *(problem.row_group, problem.row, problem.reason, problem.remedy),
                )
                for problem in problems
            ),
        )

    def _look_again(self, batch: Batch) -> None:
        """After another worker saved some of the batch's objects or rows: find which."""
        targets = {piece.target.meta.key: piece.target for piece in batch.pieces}
        keys = [*targets, *(meta.key for meta in batch.media)]
        with self._catalog.read() as connection:
            known = objects.by_key(connection, self._storage.id, keys)
        batch.media = [meta for meta in batch.media if meta.key not in known]
        for key, target in targets.items():
            found = known.get(key)
            target.id = found.id if found else None
            target.revisited = found is not None

    def _maximum_annotations(self) -> int:
        with self._catalog.read() as connection:
            number: int = connection.execute(
                sa.select(projects.c.maximum_annotations).where(
                    projects.c.id == self._storage.project_id
                )
            ).scalar_one()
        return number


_TASK_COLUMNS = (
    *("project_id", "inner_id", "data", "meta", "overlap", "allow_skip", "is_labeled"),
    *("total_annotations", "cancelled_annotations", "total_predictions"),
    *("import_object_id", "row_group", "row_index"),
)

_PROGRESS_COLUMNS = (
    *("state", "rows_done", "rows_failed", "byte_offset", "object_exists", "etag", "size", "mtime"),
)

_OBJECT_COLUMNS = (
    *("id", "storage_id", "key", "state", "rows_done", "rows_failed", "byte_offset"),
    *("etag", "size", "mtime", "created_at"),
)

_MEDIA_TASKS = """
INSERT INTO tasks (project_id, inner_id, data, overlap, import_object_id, created_at, updated_at)
SELECT :project, :inner_id + row_number() OVER (ORDER BY id) - 1, {data}, :overlap, id,
       created_at, created_at
FROM import_objects WHERE {mine} ORDER BY id
"""

#: Ids are one block in SQLite; in PostgreSQL those of other workers may lie between ours.
_MEDIA_DIALECTS = {
    "sqlite": _MEDIA_TASKS.format(
        data="json_object(:name, :start || key)", mine="id BETWEEN :ids_first AND :ids_last"
    ),
    "postgresql": _MEDIA_TASKS.format(
        data="jsonb_build_object(CAST(:name AS text), CAST(:start AS text) || key)",
        mine="id = ANY(:ids)",
    ),
}

_ANNOTATION_COLUMNS = (
    *("task_id", "project_id", "result", "completed_by", "was_cancelled", "ground_truth"),
    *("lead_time", "created_at", "updated_at"),
)


def _sort_in(work: _Work, target: Target, task: TaskRow, saved: SavedRow | None) -> None:
    if saved is None:
        work.inserts.append((target, task))
    elif not target.refresh or same_json(saved.data, task.data):
        return
    elif saved.annotated:
        work.problems.append(
            Problem(
                target.meta.key,
                task.row,
                f"the row changed, but its task {saved.task_id} has annotations of the old data",
                "Delete the task, or restore the row; then sync again with reimport_changed.",
            )
        )
    else:
        work.updates.append((saved.task_id, task.data))


def _standing(piece: Piece) -> Piece:
    """*piece* of an object whose refused rows are to be read again, as those that failed are."""
    state = ObjectState.ERROR if piece.state is ObjectState.DONE else piece.state
    return piece._replace(state=state, rows_failed=piece.rows_failed + len(piece.target.refused))


def _saved_rows(connection: sa.Connection, pieces: Sequence[Piece]) -> dict[_RowId, SavedRow]:
    """What of *pieces* is saved: one query for all that begin with their object's first row."""
    filled = [piece for piece in pieces if piece.tasks]
    beginning = [piece for piece in filled if piece.tasks[0].row <= 0]
    saved = objects.saved_rows(
        connection,
        [piece.target.id for piece in beginning if piece.target.id is not None],
        first=-1,
        last=max((piece.tasks[-1].row for piece in beginning), default=-1),
    )
    for target, _, rows, *_ in filled:
        if rows[0].row > 0 and target.id is not None:
            saved |= objects.saved_rows(
                connection, [target.id], first=rows[0].row, last=rows[-1].row
            )
    return saved


def _move_on(connection: sa.Connection, pieces: Sequence[Piece]) -> None:
    """Note where objects that the catalog knows stand now."""
    if not pieces:
        return
    moved = connection.execute(
        import_objects.update()
        .where(import_objects.c.id == sa.bindparam("object_id"))
        .values({name: sa.bindparam(f"new_{name}") for name in _PROGRESS_COLUMNS}),
        [
            {
                "object_id": target.id,
                "new_state": state.value,
                "new_rows_done": rows_done,
                "new_rows_failed": rows_failed,
                "new_byte_offset": byte_offset,
                "new_object_exists": True,
                "new_etag": target.meta.etag,
                "new_size": target.meta.size,
                "new_mtime": target.meta.modified,
            }
            for target, state, _, rows_done, rows_failed, byte_offset in pieces
        ],
    ).rowcount
    if moved != len(pieces):
        raise bulk.Conflict  # somebody deleted an object's last task, and the object with it


def _replace_data(connection: sa.Connection, updates: Sequence[tuple[int, str]]) -> None:
    """Give tasks new data, but for those that have been annotated this very moment."""
    if not updates:
        return
    connection.execute(
        tasks.update()
        .where(
            tasks.c.id == sa.bindparam("task_id"),
            tasks.c.total_annotations + tasks.c.cancelled_annotations == 0,
        )
        .values(
            data=sa.cast(sa.bindparam("text", type_=sa.Text), tasks.c.data.type),
            updated_at=now(),
        ),
        [{"task_id": task_id, "text": data} for task_id, data in updates],
    )


def _timestamps(connection: sa.Connection) -> _Timestamp:
    if connection.dialect.name == "postgresql":
        return lambda moment: moment
    return lambda moment: moment and moment.isoformat(" ")[: -len("+00:00")]


def _storable(key: str) -> str:
    """*key* for people to read: what no database takes, as escapes."""
    return key.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
