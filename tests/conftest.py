"""The fixtures that every test may use."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from catalogs import (  # noqa: F401 # fixtures
    catalog,
    catalog_url,
    empty_url,
    postgres_template,
    sqlite_template,
)
from servers import PostgresServer, S3Server, moto_server, postgres_server, weed_server


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server for the whole session."""
    with postgres_server() as server:
        yield server


@pytest.fixture(scope="session")
def weed() -> Iterator[S3Server]:
    """SeaweedFS's S3 for the whole session: it verifies signatures."""
    with weed_server() as server:
        yield server


@pytest.fixture(scope="session")
def moto() -> Iterator[S3Server]:
    """moto's S3 for the whole session: it takes every key."""
    with moto_server() as server:
        yield server
