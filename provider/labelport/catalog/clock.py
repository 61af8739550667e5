"""Time as the database sees it: one clock for every worker, whatever their own say."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import GenericFunction


class UtcDateTime(sa.types.TypeDecorator[datetime]):
    """An aware datetime in UTC: ``timestamptz`` in PostgreSQL, sortable text in SQLite."""

    impl = sa.DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> sa.types.TypeEngine[Any]:
        return dialect.type_descriptor(sa.DateTime(timezone=dialect.name == "postgresql"))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        utc = value.astimezone(UTC)
        return utc if dialect.name == "postgresql" else utc.replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


class now(GenericFunction[datetime]):
    """The database's clock at this statement, not at the start of its transaction."""

    type = UtcDateTime()
    name = "labelport_now"
    inherit_cache = True


class in_seconds(GenericFunction[datetime]):
    """The database's clock, some seconds from now."""

    type = UtcDateTime()
    name = "labelport_in_seconds"
    inherit_cache = True


# SQLAlchemy stores SQLite datetimes as text with six decimals; the clock has three.
_SQLITE_NOW = "(strftime('%Y-%m-%d %H:%M:%f', 'now'{}) || '000')"


@compiles(now, "postgresql")
def _now_postgresql(element: now, compiler: SQLCompiler, **options: Any) -> str:
    return "clock_timestamp()"


@compiles(now, "sqlite")
def _now_sqlite(element: now, compiler: SQLCompiler, **options: Any) -> str:
    return _SQLITE_NOW.format("")


@compiles(in_seconds, "postgresql")
def _in_seconds_postgresql(element: in_seconds, compiler: SQLCompiler, **options: Any) -> str:
    seconds = compiler.process(element.clauses, **options)
    return f"(clock_timestamp() + make_interval(secs => CAST({seconds} AS double precision)))"


@compiles(in_seconds, "sqlite")
def _in_seconds_sqlite(element: in_seconds, compiler: SQLCompiler, **options: Any) -> str:
    seconds = compiler.process(element.clauses, **options)
    return _SQLITE_NOW.format(f", CAST({seconds} AS TEXT) || ' seconds'")
