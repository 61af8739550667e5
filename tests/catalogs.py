"""Migrated, empty catalogs for tests, one per test, on SQLite and on PostgreSQL.

A catalog is migrated once per session and database; each test gets a copy of it, in
milliseconds. A test that takes ``catalog`` or ``catalog_url`` runs once on each database.
"""

from __future__ import annotations

import itertools
import json
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from labelport.catalog import Catalog, projects, schema, storages, upgrading
from labelport.errors import NotFound
from labelport.model import Storage
from servers import PostgresServer

TEMPLATE = "labelport_template"


@pytest.fixture(params=["sqlite", "postgresql"])
def catalog_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty, migrated catalog."""
    if request.param == "sqlite":
        template = request.getfixturevalue("sqlite_template")
        yield f"sqlite:///{shutil.copy(template, tmp_path / 'catalog.db')}"
    else:
        request.getfixturevalue("postgres_template")
        with postgres_database(request.getfixturevalue("postgres"), TEMPLATE) as url:
            yield url


@pytest.fixture
def catalog(catalog_url: str) -> Iterator[Catalog]:
    """An empty, migrated catalog, opened."""
    with Catalog(catalog_url) as catalog:
        yield catalog


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database without any table."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
    else:
        with postgres_database(request.getfixturevalue("postgres")) as url:
            yield url


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("catalog") / "template.db"
    with Catalog(f"sqlite:///{path}") as catalog:
        upgrading.upgrade(catalog)
    return path


@pytest.fixture(scope="session")
def postgres_template(postgres: PostgresServer) -> None:
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {TEMPLATE}")
    with Catalog(postgres.url(TEMPLATE)) as catalog:
        upgrading.upgrade(catalog)


@contextmanager
def postgres_database(server: PostgresServer, template: str = "template0") -> Iterator[str]:
    """A database of its own, dropped at the end whoever is still connected."""
    name = f"test_{uuid.uuid4().hex}"
    admin = server.url()
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        try:
            yield server.url(name)
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def any_storage(connection: sa.Connection, name: str = "photos", **settings: Any) -> Storage:
    """An import storage of the project "Cats", which is made if it is not there."""
    try:
        project = projects.get(connection, "Cats")
    except NotFound:
        project = projects.add(connection, "Cats")
    location = settings.pop("location", f"s3://{name}/2024")
    return storages.add(connection, project.id, name, location, **settings)


def import_tasks(
    connection: sa.Connection,
    storage: Storage,
    keys: Sequence[str],
    *,
    rows: int = 0,
    annotated: bool = False,
    state: str = "done",
) -> list[int]:
    """Save one task per key, or per row of each, as a sync would; their ids in order."""
    inner_id = connection.scalar(
        schema.projects.update()
        .where(schema.projects.c.id == storage.project_id)
        .values(next_inner_id=schema.projects.c.next_inner_id + len(keys) * max(rows, 1))
        .returning(schema.projects.c.next_inner_id)
    )
    inner_ids = itertools.count(inner_id - len(keys) * max(rows, 1))
    task_ids = itertools.count(_next_id(connection, schema.tasks))
    objects, tasks = [], []
    for object_id, key in enumerate(keys, start=_next_id(connection, schema.import_objects)):
        objects.append(
            {"id": object_id, "storage_id": storage.id, "key": key, "state": state}
            | {"etag": "e1", "size": 10}
        )
        data = _json(connection, {"image": storage.uri(key)})
        tasks += [
            {"id": next(task_ids), "project_id": storage.project_id, "inner_id": next(inner_ids)}
            | {"import_object_id": object_id, "row_index": row, "data": data}
            for row in (range(rows) if rows else [-1])
        ]
    connection.execute(schema.import_objects.insert(), objects)
    connection.execute(schema.tasks.insert(), tasks)
    if annotated:
        _annotate(connection, tasks)
    return [task["id"] for task in tasks]


def _annotate(connection: sa.Connection, tasks: Sequence[dict[str, Any]]) -> None:
    result = _json(connection, [{"value": 1.10}])
    rows = [
        {"task_id": task["id"], "project_id": task["project_id"], "result": result}
        for task in tasks
    ]
    connection.execute(schema.annotations.insert(), rows)
    predictions = [{**row, "score": 0.5, "model_version": "m1"} for row in rows]
    connection.execute(schema.predictions.insert(), predictions)


def _json(connection: sa.Connection, value: object) -> object:
    """SQLite takes text, and PostgreSQL's driver makes it of the value."""
    return json.dumps(value) if connection.dialect.name == "sqlite" else value


def _next_id(connection: sa.Connection, table: sa.Table) -> int:
    return (connection.scalar(sa.select(sa.func.max(table.c.id))) or 0) + 1
