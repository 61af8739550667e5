"""What the catalog knows of a storage's objects: by key range, by key, or by sample."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple, TypeVar

import sqlalchemy as sa

from labelport.catalog import bulk
from labelport.catalog.schema import import_errors, import_objects, tasks
from labelport.model import KeyRange, ObjectState

#: How many values one statement may list; SQLite's own limit is 32,766.
_CHUNK = 5_000
_T = TypeVar("_T", int, str)


#: What a listing is compared with: id, key, etag, size in bytes, and whether the object is
#: settled, that is imported whole and in the bucket when last seen. A plain tuple, as the driver
#: makes it: one for every known key of every sync.
Brief = tuple[int, str, str, int, bool]


class KnownObject(NamedTuple):
    """An object that some sync of its storage has met before."""

    id: int
    key: str
    state: str  #: an `ObjectState`
    etag: str
    size: int  #: bytes
    object_exists: bool
    rows_done: int  #: rows before this index are saved
    rows_failed: int  #: of those, how many became error rows
    byte_offset: int  #: where the row ``rows_done`` begins, in JSONL


_SETTLED = (import_objects.c.state == ObjectState.DONE) & import_objects.c.object_exists
_BRIEF = [*(import_objects.c[name] for name in ("id", "key", "etag", "size")), _SETTLED]
_COLUMNS = [import_objects.c[name] for name in KnownObject._fields]


def in_range(connection: sa.Connection, storage_id: int, keys: KeyRange) -> dict[str, Brief]:
    """The known objects whose key lies in *keys*, by key: one range query."""
    where = [import_objects.c.storage_id == storage_id, import_objects.c.key > keys.after]
    if keys.until is not None:
        where.append(import_objects.c.key <= keys.until)
    rows: list[Brief] = bulk.fetch(connection, sa.select(*_BRIEF).where(*where))
    return {row[1]: row for row in rows}


def briefly(connection: sa.Connection, storage_id: int, keys: Collection[str]) -> dict[str, Brief]:
    """The known ones of *keys*, by key, for listings that are in no order."""
    found: dict[str, Brief] = {}
    for some in _chunks(sorted(keys)):
        query = sa.select(*_BRIEF).where(
            import_objects.c.storage_id == storage_id, import_objects.c.key.in_(some)
        )
        found |= {row[1]: row for row in bulk.fetch(connection, query)}
    return found


def by_key(
    connection: sa.Connection, storage_id: int, keys: Collection[str]
) -> dict[str, KnownObject]:
    """All that is known of *keys*, by key."""
    found: dict[str, KnownObject] = {}
    for some in _chunks(sorted(keys)):
        rows = connection.execute(
            sa.select(*_COLUMNS).where(
                import_objects.c.storage_id == storage_id, import_objects.c.key.in_(some)
            )
        )
        found |= {row[1]: KnownObject(*row) for row in rows}
    return found


class Existing(NamedTuple):
    """An object in a key range, as a sweep wants it."""

    id: int
    key: str
    object_exists: bool


def existing(connection: sa.Connection, storage_id: int, keys: KeyRange) -> Iterator[Existing]:
    """The known objects in *keys*, streamed in no particular order."""
    where = [import_objects.c.storage_id == storage_id, import_objects.c.key > keys.after]
    if keys.until is not None:
        where.append(import_objects.c.key <= keys.until)
    columns = [import_objects.c[name] for name in Existing._fields]
    query = sa.select(*columns).where(*where).execution_options(yield_per=_CHUNK)
    for row in connection.execute(query):
        yield Existing._make(row)


def newest(connection: sa.Connection, storage_id: int) -> int:
    """The greatest object id of a storage, 0 if it has none."""
    query = sa.select(sa.func.max(import_objects.c.id)).where(
        import_objects.c.storage_id == storage_id
    )
    return connection.execute(query).scalar_one() or 0


def mark(connection: sa.Connection, ids: Sequence[int], *, exists: bool) -> None:
    """Note whether the bucket still holds these objects."""
    for some in _chunks(sorted(ids)):
        connection.execute(
            import_objects.update()
            .where(import_objects.c.id.in_(some), import_objects.c.object_exists.is_not(exists))
            .values(object_exists=exists)
        )


def judged(
    connection: sa.Connection, storage_id: int, run_id: str, keys: Collection[str]
) -> set[str]:
    """Which of *keys* have error rows of this run already, from before a worker's restart."""
    found: set[str] = set()
    for some in _chunks(sorted(keys)):
        rows = connection.execute(
            sa.select(import_errors.c.key)
            .distinct()
            .where(
                import_errors.c.storage_id == storage_id,
                import_errors.c.run_id == run_id,
                import_errors.c.key.in_(some),
            )
        )
        found.update(row[0] for row in rows)
    return found


class SavedRow(NamedTuple):
    """A row of an object that is a task already."""

    task_id: int
    annotated: bool
    data: str  #: JSON text, as the database writes it


def saved_rows(
    connection: sa.Connection, object_ids: Sequence[int], *, first: int, last: int
) -> dict[tuple[int, int, int], SavedRow]:
    """The tasks made from some objects' rows ``first <= row <= last``.

    By object id, row group and row.
    """
    found: dict[tuple[int, int, int], SavedRow] = {}
    for some in _chunks(sorted(object_ids)):
        query = sa.select(
            tasks.c.import_object_id,
            tasks.c.row_group,
            tasks.c.row_index,
            tasks.c.id,
            (tasks.c.total_annotations + tasks.c.cancelled_annotations > 0).label("annotated"),
            sa.cast(tasks.c.data, sa.Text).label("data"),
        ).where(tasks.c.import_object_id.in_(some), tasks.c.row_index.between(first, last))
        found |= {(row[0], row[1], row[2]): SavedRow(*row[3:]) for row in connection.execute(query)}
    return found


def sample(connection: sa.Connection, storage_id: int, count: int) -> list[str]:
    """Up to *count* keys of a storage, sorted, taken at random without reading them all."""
    bounds = connection.execute(
        sa.select(sa.func.min(import_objects.c.id), sa.func.max(import_objects.c.id)).where(
            import_objects.c.storage_id == storage_id
        )
    ).one()
    if bounds[0] is None:
        return []
    population = range(bounds[0], bounds[1] + 1)
    chosen = random.sample(population, min(count, len(population)))
    rows = connection.execute(
        sa.select(import_objects.c.key).where(
            import_objects.c.storage_id == storage_id, import_objects.c.id.in_(chosen)
        )
    )
    return sorted(row[0] for row in rows)


def _chunks(values: Sequence[_T]) -> Iterator[Sequence[_T]]:
    for start in range(0, len(values), _CHUNK):
        yield values[start : start + _CHUNK]
