"""The catalog's URL out of a connection of type ``labelport``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from labelport.connections import DEFAULT_CATALOG_CONN_ID
from labelport.connections.lookup import find, find_or_none
from labelport.errors import ConfigurationError

if TYPE_CHECKING:
    from airflow.sdk import Connection


def url_of(conn_id: str) -> str:
    """The database URL behind *conn_id*, password included: never log it.

    Unlike the command line, a task has no meaningful working directory, so there is no default
    file: either the connection or ``LABELPORT_CATALOG_URL`` says where the catalog is.
    """
    if conn_id == DEFAULT_CATALOG_CONN_ID and find_or_none(conn_id) is None:
        return _url_of_environment()
    return connection_url(find(conn_id, kind="labelport"))


def _url_of_environment() -> str:
    url = os.environ.get("LABELPORT_CATALOG_URL")
    if not url:
        raise ConfigurationError(
            f"nobody says where the catalog is: create the connection {DEFAULT_CATALOG_CONN_ID!r} "
            "(type labelport), or set LABELPORT_CATALOG_URL"
        )
    return url


def connection_url(connection: Connection) -> str:
    """The database URL of a ``labelport`` connection.

    ``sqlite_path`` in the extra names a SQLite file. Otherwise host, port, schema (the
    database), login and password name a PostgreSQL, and the rest of the extra goes to its
    driver (``sslmode``, ``sslrootcert``, ``connect_timeout``, …).

    Raises:
        ConfigurationError: it names both, or neither.
    """
    import sqlalchemy as sa

    extra = {name: str(value) for name, value in connection.extra_dejson.items() if value}
    path = extra.pop("sqlite_path", None)
    if bool(path) == bool(connection.host):
        raise ConfigurationError(
            f"connection {connection.conn_id!r} must name either a PostgreSQL host "
            "or, in its extra, sqlite_path"
        )
    if path:
        return sa.URL.create("sqlite", database=path).render_as_string(hide_password=False)
    return sa.URL.create(
        "postgresql",
        username=connection.login,
        password=connection.password,
        host=connection.host,
        port=connection.port,
        database=connection.schema,
        query=extra,
    ).render_as_string(hide_password=False)
