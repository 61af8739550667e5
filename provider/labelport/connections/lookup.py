"""Finding an Airflow connection, with an error that names the remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labelport.errors import ConfigurationError

if TYPE_CHECKING:
    from airflow.sdk import Connection


def find(conn_id: str, *, kind: str) -> Connection:
    """The connection *conn_id*, which must be of type *kind*.

    Raises:
        ConfigurationError: Airflow is not installed, or the connection is missing or of
            another type.
    """
    connection = find_or_none(conn_id)
    if connection is None:
        raise ConfigurationError(
            f"connection {conn_id!r} is not defined; create it in Airflow (type {kind}) "
            f"or set AIRFLOW_CONN_{conn_id.upper()}"
        )
    if connection.conn_type != kind:
        raise ConfigurationError(
            f"connection {conn_id!r} is of type {connection.conn_type!r}, not {kind!r}"
        )
    return connection


def find_or_none(conn_id: str) -> Connection | None:
    """The connection *conn_id*, or None when no secrets backend knows it."""
    try:
        from airflow.sdk import BaseHook
        from airflow.sdk.exceptions import AirflowNotFoundException
    except ImportError as exc:
        raise missing("Airflow", "airflow") from exc
    try:
        return BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        return None


def missing(what: str, extra: str) -> ConfigurationError:
    """The error for a library that is not installed."""
    return ConfigurationError(
        f"{what} is not installed: pip install 'airflow-provider-labelport[{extra}]'"
    )
