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
from servers import PostgresServer, postgres_server


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server for the whole session."""
    with postgres_server() as server:
        yield server
