"""Opening the catalog: SQLite in WAL mode by default, PostgreSQL 15+ in production."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import sqlalchemy as sa

from labelport.errors import ConfigurationError

#: Where the catalog is when nobody says otherwise: a file in the working directory.
DEFAULT_URL = "sqlite:///labelport.db"

_NETWORK_SECONDS = 5  # for a connection, and for the other side to acknowledge what was sent
_GRACE_SECONDS = 1.0  # longer than the server ends a statement, which leaves a good connection


def catalog_url() -> str:
    """The catalog's URL: ``LABELPORT_CATALOG_URL``, or `DEFAULT_URL`."""
    return os.environ.get("LABELPORT_CATALOG_URL") or DEFAULT_URL


class Catalog:
    """The database of projects, storages, tasks and links, opened.

    Its connections are shared between threads by a pool and must not outlive a fork. The
    functions that use it are in the modules beside this one; they take a connection from
    `begin` or `read`.

    :param answer_seconds: how long PostgreSQL may take for a statement; a connection that hears
        nothing for longer is given up. None: as long as it takes, as syncs need it.
    """

    def __init__(self, url: str | None = None, *, answer_seconds: float | None = None) -> None:
        self.engine = _open(url or catalog_url(), answer_seconds)

    @contextmanager
    def begin(self) -> Iterator[sa.Connection]:
        """One transaction that writes: committed at the end, rolled back on any error.

        On SQLite the write lock is taken at once, so that two writers queue and never deadlock.
        """
        with self.engine.begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A connection that only reads; it takes no lock."""
        with self.engine.connect() as connection:
            yield connection.execution_options(labelport_read=True)

    def close(self) -> None:
        self.engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Catalog({self.engine.url.render_as_string(hide_password=True)!r})"


def _open(text: str, answer_seconds: float | None) -> sa.Engine:
    try:
        url = sa.make_url(text)
    except sa.exc.ArgumentError:
        # The text is not echoed: it may hold a password.
        raise ConfigurationError(
            "the catalog URL cannot be read; write sqlite:///file or postgresql://host/database"
        ) from None
    match url.get_backend_name():
        case "sqlite":
            return _open_sqlite(url)
        case "postgresql":
            url = url.set(drivername="postgresql+psycopg")
            if answer_seconds is None:
                return _open_postgresql(url)
            return _impatient(url, answer_seconds)
        case other:
            raise ConfigurationError(
                f"the catalog cannot live in {other}; use sqlite:// or postgresql://"
            )


def _impatient(url: sa.URL, answer_seconds: float) -> sa.Engine:
    """An engine that waits for nothing without limit; what the URL sets, it sets."""
    limits = {
        "connect_timeout": str(_NETWORK_SECONDS),
        "tcp_user_timeout": str(_NETWORK_SECONDS * 1000),
    }
    engine = _open_postgresql(url.set(query={**limits, **url.query}))
    from labelport.catalog._impatient import ImpatientConnection

    @sa.event.listens_for(engine, "do_connect")
    def connect(
        dialect: object, record: object, arguments: Any, parameters: Any
    ) -> ImpatientConnection:
        connection = ImpatientConnection.connect(*arguments, **parameters)
        connection.answer_seconds = answer_seconds + _GRACE_SECONDS
        connection.execute(f"SET statement_timeout = {round(answer_seconds * 1000)}")
        connection.commit()
        return connection

    return engine


def _open_postgresql(url: sa.URL) -> sa.Engine:
    try:
        engine = sa.create_engine(url, pool_pre_ping=True, hide_parameters=True)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "PostgreSQL needs its driver: pip install 'airflow-provider-labelport[postgres]'"
        ) from error

    @sa.event.listens_for(engine, "connect")
    def configure(connection: Any, record: object) -> None:
        # In any other zone, each time that is read has to be turned into UTC.
        connection.execute("SET TIME ZONE 'UTC'")
        connection.commit()

    return engine


def _open_sqlite(url: sa.URL) -> sa.Engine:
    engine = sa.create_engine(url, connect_args={"timeout": 60}, hide_parameters=True)

    @sa.event.listens_for(engine, "connect")
    def configure(connection: Any, record: object) -> None:
        connection.isolation_level = None  # BEGIN is ours, below
        for pragma in (
            "journal_mode=WAL",
            "synchronous=NORMAL",
            "foreign_keys=ON",
            "cache_size=-32768",
            "wal_autocheckpoint=8192",
        ):
            connection.execute(f"PRAGMA {pragma}").close()

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        if connection.get_execution_options().get("labelport_read"):
            # This takes no lock and cannot fail, so that SQLAlchemy's care would be for nothing.
            driver: Any = connection.connection.driver_connection
            driver.execute("BEGIN").close()
        else:
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine
