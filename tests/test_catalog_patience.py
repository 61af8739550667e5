"""How long a catalog in PostgreSQL is waited for: a sync for ever, the proxy not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
import sqlalchemy as sa

from forwarding import Forwarder, forwarder
from labelport.catalog import Catalog
from servers import PostgresServer


@pytest.fixture
def way(postgres: PostgresServer) -> Iterator[Forwarder]:
    with forwarder(postgres.host, postgres.port) as made:
        yield made


def slept(catalog: Catalog, seconds: float) -> bool:
    """Whether the server came to the end of a statement that takes so long."""
    with catalog.read() as connection:
        try:
            connection.execute(sa.text("SELECT pg_sleep(:seconds)"), {"seconds": seconds})
        except sa.exc.OperationalError:
            return False
    return True


def test_a_statement_that_takes_too_long_is_ended(postgres: PostgresServer) -> None:
    """By the server: the connection is as good as before, and rows are not locked any longer."""
    with Catalog(postgres.url(), answer_seconds=0.1) as catalog:
        with catalog.read() as connection:
            before = connection.scalar(sa.text("SELECT pg_backend_pid()"))
        assert not slept(catalog, 30)

        with catalog.read() as connection:
            assert connection.scalar(sa.text("SELECT pg_backend_pid()")) == before


def test_a_sync_is_given_all_the_time(postgres: PostgresServer) -> None:
    with Catalog(postgres.url()) as catalog, catalog.read() as connection:
        assert connection.scalar(sa.text("SHOW statement_timeout")) == "0"
    with Catalog(postgres.url(), answer_seconds=0.1) as catalog, catalog.read() as connection:
        assert connection.scalar(sa.text("SHOW statement_timeout")) == "100ms"


def test_a_server_that_goes_mute_is_given_up(postgres: PostgresServer, way: Forwarder) -> None:
    with Catalog(replace(postgres, port=way.port).url(), answer_seconds=0.1) as catalog:
        with catalog.read() as connection:
            connection.execute(sa.text("SELECT 1"))
            way.freeze()
            begun = time.monotonic()
            with pytest.raises(sa.exc.OperationalError, match="did not answer"):
                connection.execute(sa.text("SELECT 1"))
            assert time.monotonic() - begun < 5

        way.thaw()
        assert slept(catalog, 0)
