"""Storages: configured places, each with the latest sync it had."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import NamedTuple, TypedDict, Unpack

import sqlalchemy as sa

from labelport.catalog import runs
from labelport.catalog.clock import now
from labelport.catalog.naming import is_id
from labelport.catalog.removing import drop_import_objects
from labelport.catalog.schema import export_links, import_objects, projects, storages
from labelport.catalog.validating import overlap, validate
from labelport.errors import ConfigurationError, NotFound, SyncRefused
from labelport.model import Counters, Direction, ExportFormat, Status, Storage, SyncState
from labelport.uri import ObjectUri

_COLUMNS = [storages.c[field.name] for field in fields(Storage)]
_STATE_COLUMNS = [
    storages.c[field.name] for field in fields(SyncState) if field.name not in ("counters",)
]


class Settings(TypedDict, total=False):
    """What a storage has besides its project, name, location and direction; see `Storage`."""

    description: str
    conn_id: str | None
    regex_filter: str | None
    recursive_scan: bool
    use_blob_urls: bool
    presign: bool
    presign_seconds: int
    serve_any_key: bool
    can_delete_objects: bool
    synchronizable: bool
    export_format: ExportFormat
    key_template: str | None
    rows_per_file: int


def add(
    connection: sa.Connection,
    project_id: int,
    name: str,
    location: str,
    direction: Direction = Direction.IMPORT,
    *,
    allow_overlap: bool = False,
    **settings: Unpack[Settings],
) -> Storage:
    """Save a new storage at *location*, ``scheme://bucket/prefix``; nothing is contacted.

    The prefix is taken literally: ``s3://bucket//a`` has the prefix ``/a``. Two import storages
    of a project whose locations overlap would import the same objects twice: *allow_overlap*
    says that filters keep them apart.

    Raises:
        NotFound: there is no such project.
        ConfigurationError: a setting cannot work, the name is taken, or locations overlap.
    """
    place = ObjectUri.parse(location)
    storage = Storage(
        0, project_id, name, Direction(direction), place.scheme, place.bucket, place.key, **settings
    )
    storage = _checked(connection, storage, allow_overlap)
    return _save(connection, storage, storages.insert())


def update(
    connection: sa.Connection,
    storage_id: int,
    *,
    name: str | None = None,
    location: str | None = None,
    allow_overlap: bool = False,
    **settings: Unpack[Settings],
) -> Storage:
    """Change a storage; a sync that is running keeps the settings it began with.

    The location, and the format of an export, can change only while nothing was imported from it
    or exported to it: keys mean nothing in another bucket, objects outside the prefix would all
    count as missing, and a ledger of files is no ledger of annotations.

    Raises:
        NotFound: there is no such storage.
        ConfigurationError: a setting cannot work, or the location is in use.
    """
    old = _locked(connection, storage_id)
    new = replace(old, name=old.name if name is None else name, **settings)
    if location is not None:
        place = ObjectUri.parse(location)
        new = replace(new, scheme=place.scheme, bucket=place.bucket, prefix=place.key)
    moved = (new.location, new.export_format) != (old.location, old.export_format)
    if moved and _has_objects(connection, storage_id):
        raise ConfigurationError(
            f"storage {old.name!r} has objects in {old.location}; add another storage for a new "
            "location or format instead"
        )
    new = _checked(connection, new, allow_overlap)
    return _save(connection, new, storages.update().where(storages.c.id == storage_id))


def get(connection: sa.Connection, name_or_id: str | int) -> Storage:
    """The storage of this name or id. Raises `NotFound`."""
    column = storages.c.id if is_id(name_or_id) else storages.c.name
    value = int(name_or_id) if is_id(name_or_id) else name_or_id
    row = connection.execute(sa.select(*_COLUMNS).where(column == value)).one_or_none()
    if row is None:
        raise NotFound(f"there is no storage {name_or_id!r}; see: labelport storages list")
    return _storage(row)


def list_all(connection: sa.Connection, project_id: int | None = None) -> list[Storage]:
    """Every storage, or those of one project, the oldest first."""
    query = sa.select(*_COLUMNS).order_by(storages.c.id)
    if project_id is not None:
        query = query.where(storages.c.project_id == project_id)
    return [_storage(row) for row in connection.execute(query)]


def state(connection: sa.Connection, storage_id: int) -> SyncState:
    """The latest sync of a storage, with the counters of its run so far. Raises `NotFound`."""
    query = sa.select(*_STATE_COLUMNS).where(storages.c.id == storage_id)
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        raise NotFound(f"there is no storage {storage_id}; see: labelport storages list")
    run_id = row["run_id"]
    counters = runs.totals(connection, storage_id, run_id) if run_id else Counters()
    return SyncState(**{**row, "status": Status(row["status"])}, counters=counters)


class Removed(NamedTuple):
    """What became of a removed storage's tasks."""

    tasks_kept: int
    tasks_deleted: int


def remove(
    connection: sa.Connection,
    storage_id: int,
    *,
    delete_tasks: bool = False,
    force: bool = False,
) -> Removed:
    """Forget a storage, its links and its error rows; nothing in the bucket is touched.

    The tasks it brought stay, annotations and all, without their link: another storage on the
    same location would import those objects as new tasks. With *delete_tasks* the tasks go too,
    and their annotations and predictions with them.

    *force* removes it in the middle of a sync, which then stops with `SyncLost`.

    Raises:
        NotFound: there is no such storage.
        SyncRefused: a sync of it is queued or in progress.
    """
    storage = _locked(connection, storage_id, to_delete=True)
    if not force and _active(connection, storage_id):
        raise SyncRefused(
            f"a sync of storage {storage.name!r} is running; wait for its end, or use force"
        )
    tasks = drop_import_objects(connection, storage_id, delete_tasks=delete_tasks)
    connection.execute(storages.delete().where(storages.c.id == storage_id))
    return Removed(0, tasks) if delete_tasks else Removed(tasks, 0)


def _checked(connection: sa.Connection, storage: Storage, allow_overlap: bool) -> Storage:
    """The storage as it will be saved; its project stays locked until the transaction ends, so
    that of two overlapping storages added at once the second sees the first."""
    storage = replace(
        storage, conn_id=storage.conn_id or None, regex_filter=storage.regex_filter or None
    )
    validate(storage)
    project = sa.select(projects.c.id).where(projects.c.id == storage.project_id)
    if connection.scalar(project.with_for_update(key_share=True)) is None:
        raise NotFound(f"there is no project {storage.project_id}; see: labelport projects list")
    for other in [] if allow_overlap else list_all(connection, storage.project_id):
        if other.id != storage.id and _imports_twice(storage, other):
            raise ConfigurationError(
                f"storage {other.name!r} imports from {other.location} already: objects in both "
                "places would become two tasks each. Choose another prefix, or allow the overlap "
                "if filters keep the two apart"
            )
    return storage


def _imports_twice(one: Storage, other: Storage) -> bool:
    imports = all(s.direction is Direction.IMPORT and s.synchronizable for s in (one, other))
    return imports and overlap(one, other)


def _save(connection: sa.Connection, storage: Storage, statement: sa.Insert | sa.Update) -> Storage:
    values = {f.name: getattr(storage, f.name) for f in fields(Storage) if f.name != "id"}
    try:
        with connection.begin_nested():
            row = connection.execute(statement.values(values).returning(*_COLUMNS)).one()
    except sa.exc.IntegrityError as error:
        raise ConfigurationError(
            f"there is a storage {storage.name!r} already; choose another name"
        ) from error
    return _storage(row)


def _locked(connection: sa.Connection, storage_id: int, *, to_delete: bool = False) -> Storage:
    """The storage, which nobody else changes or claims before this transaction ends.

    Batches of a running sync go on meanwhile, unless it is locked *to_delete* it.
    """
    query = sa.select(*_COLUMNS).where(storages.c.id == storage_id)
    row = connection.execute(query.with_for_update(key_share=not to_delete)).one_or_none()
    if row is None:
        raise NotFound(f"there is no storage {storage_id}; see: labelport storages list")
    return _storage(row)


def _active(connection: sa.Connection, storage_id: int) -> bool:
    """Whether a run owns the storage and its lease holds, by the database's clock."""
    active = [status for status in Status if status.active]
    query = sa.select(storages.c.id).where(
        storages.c.id == storage_id,
        storages.c.status.in_(active),
        storages.c.lease_until >= now(),
    )
    return connection.scalar(query) is not None


def _has_objects(connection: sa.Connection, storage_id: int) -> bool:
    """Whether it has imported or exported any, going by links and ledger."""
    return any(
        connection.scalar(
            sa.select(table.c.storage_id).where(table.c.storage_id == storage_id).limit(1)
        )
        is not None
        for table in (import_objects, export_links)
    )


def _storage(row: sa.Row[tuple[object, ...]]) -> Storage:
    values = dict(row._mapping)
    values["direction"] = Direction(values["direction"])
    values["export_format"] = ExportFormat(values["export_format"])
    return Storage(**values)
