"""Migrated, empty catalogs for tests, one per test, on SQLite and on PostgreSQL.

A catalog is migrated once per session and database; each test gets a copy of it, in
milliseconds. A test that takes ``catalog`` or ``catalog_url`` runs once on each database.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from labelport.catalog import Catalog, projects, storages, upgrading
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
