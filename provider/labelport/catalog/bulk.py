"""Many rows at once: COPY in PostgreSQL, long VALUES in SQLite, past SQLAlchemy's own insert.

Measured: five to ten times SQLAlchemy Core's insert on both (`benchmarks/README.md`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from itertools import chain, islice
from typing import Any

import sqlalchemy as sa

from labelport.catalog.clock import UtcDateTime
from labelport.catalog.schema import JSON_TEXT, metadata

#: Rows of one INSERT; SQLite takes 32,766 parameters, more than any of our tables needs for it.
_ROWS = 100


class Conflict(Exception):
    """Another worker has written one of these rows meanwhile; the transaction is void."""


def insert(
    connection: sa.Connection, table: str, columns: Sequence[str], rows: Iterable[tuple[Any, ...]]
) -> None:
    """Insert *rows* of plain database values (str, int, float, bool, None) in their order.

    Raises:
        Conflict: a row breaks a unique constraint.
    """
    if connection.dialect.name == "postgresql":
        _copy(connection, table, columns, rows)
    else:
        _insert_values(connection, table, columns, rows)


def _insert_values(
    connection: sa.Connection, table: str, columns: Sequence[str], rows: Iterable[tuple[Any, ...]]
) -> None:
    """A hundred rows a statement: half the cost of ``executemany``, which steps through each."""
    rest = iter(rows)
    try:
        while some := list(islice(rest, _ROWS)):
            connection.exec_driver_sql(
                _insert_statement(table, tuple(columns), len(some)), tuple(chain(*some))
            )
    except sa.exc.IntegrityError as error:
        if "UNIQUE constraint" in str(error.orig):
            raise Conflict from error
        raise


@cache
def _insert_statement(table: str, columns: tuple[str, ...], rows: int) -> str:
    marks = f"({', '.join('?' * len(columns))})"
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES {', '.join([marks] * rows)}"  # noqa: S608 (our names)


def _copy(
    connection: sa.Connection, table: str, columns: Sequence[str], rows: Iterable[tuple[Any, ...]]
) -> None:
    from psycopg.errors import UniqueViolation

    driver: Any = connection.connection.driver_connection
    try:
        with (
            driver.cursor() as cursor,
            cursor.copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN") as copy,
        ):
            write = copy.write_row
            for row in rows:
                write(row)
    except UniqueViolation as error:
        raise Conflict from error


def columns_of(table: sa.Table, names: Sequence[str]) -> list[sa.ColumnElement[Any]]:
    """Columns of *table*, JSON as the database's own text: nothing is parsed or rounded."""
    return [
        sa.cast(table.c[name], sa.Text).label(name)
        if table.c[name].type is JSON_TEXT
        else table.c[name]
        for name in names
    ]


def fetch(
    connection: sa.Connection, query: sa.Select[Any], parameters: Mapping[str, Any] | None = None
) -> list[Any]:
    """All rows of *query* as the driver's plain tuples, without SQLAlchemy's work on each.

    For columns of numbers and text; SQLite's booleans come as 0 and 1.
    """
    result = connection.execute(query, parameters)
    cursor: Any = result.cursor
    rows: list[Any] = cursor.fetchall()
    result.close()
    return rows


def fetch_columns(connection: sa.Connection, query: sa.Select[Any]) -> list[Iterable[Any]]:
    """All rows of *query* as its columns, with booleans and times that are such in Python.

    ``map(Kind, *columns)`` makes objects of them; a third of what SQLAlchemy takes row by row.
    """
    of = _READERS[connection.dialect.name]
    selected = query.selected_columns
    columns = list(zip(*fetch(connection, query), strict=True)) or [()] * len(selected)
    return [
        values if (read := of.get(type(column.type))) is None else map(read, values)
        for column, values in zip(selected, columns, strict=True)
    ]


def _moment(value: str | None) -> datetime | None:
    return None if value is None else datetime.fromisoformat(value + "+00:00")


def _in_utc(value: datetime | None) -> datetime | None:
    return value if value is None or value.tzinfo is UTC else value.astimezone(UTC)


def _truth(value: int | None) -> bool | None:
    return None if value is None else bool(value)


#: What a driver's values of some types become.
_READERS: Mapping[str, Mapping[type, Callable[[Any], object]]] = {
    "sqlite": {UtcDateTime: _moment, sa.Boolean: _truth},
    "postgresql": {UtcDateTime: _in_utc},
}


def reserve_ids(connection: sa.Connection, table: str, count: int) -> Sequence[int]:
    """*count* unused ids of *table*, ascending; they are wasted if the transaction fails."""
    if not count:
        return []
    if connection.dialect.name == "postgresql":
        rows = connection.exec_driver_sql(
            f"SELECT nextval('{table}_id_seq') FROM generate_series(1, {count})"  # noqa: S608
        )
        return sorted(row[0] for row in rows)
    # The write lock is ours (BEGIN IMMEDIATE), so nobody else can take the same ids.
    last = connection.exec_driver_sql(
        "SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)
    ).scalar_one_or_none()
    start = (last or 0) + 1
    return range(start, start + count)


def lock_parents(connection: sa.Connection, *, project_id: int, storage_id: int) -> bool:
    """Keep a batch's project and storage from being deleted until it commits.

    PostgreSQL's hot tables have no foreign keys of their own (`schema`); SQLite's have, and its
    one writer needs no lock. False: one of the two is gone.
    """
    for name, number in (("projects", project_id), ("storages", storage_id)):
        table = metadata.tables[name]
        query = (
            sa.select(table.c.id)
            .where(table.c.id == number)
            .with_for_update(read=True, key_share=True)
        )
        if connection.execute(query).one_or_none() is None:
            return False
    return True
