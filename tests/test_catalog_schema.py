"""The migrations lead to the schema that the code knows, on both databases."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from catalogs import any_storage, postgres_database
from labelport.catalog import Catalog, projects
from labelport.catalog.schema import IMPORT_LINKS, import_links, metadata
from labelport.catalog.upgrading import VERSION_TABLE


@pytest.fixture
def created(catalog: Catalog, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Catalog]:
    """A catalog made from the metadata instead of by migrations, on the same database."""
    if catalog.engine.dialect.name == "sqlite":
        yield from _created(f"sqlite:///{tmp_path / 'created.db'}")
    else:
        with postgres_database(request.getfixturevalue("postgres")) as url:
            yield from _created(url)


def _created(url: str) -> Iterator[Catalog]:
    with Catalog(url) as created:
        with created.begin() as connection:
            metadata.create_all(connection)
            connection.exec_driver_sql(f"CREATE VIEW import_links AS {IMPORT_LINKS}")
        yield created


def test_alembic_finds_nothing_to_migrate(catalog):
    with catalog.read() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "version_table": VERSION_TABLE,
                "include_object": _expected_here(connection.dialect.name),
            },
        )

        assert compare_metadata(context, metadata) == []


def _expected_here(dialect: str):
    """Leave out the foreign keys that exist on SQLite only; the next test looks at those."""

    def expected(item, name, kind, reflected, other):
        ddl_if = getattr(item, "_ddl_if", None)
        return ddl_if is None or ddl_if.dialect == dialect

    return expected


def test_migrated_and_created_schema_are_the_same(catalog, created):
    """Collations, defaults, checks, foreign keys, AUTOINCREMENT and the view, one by one."""
    with catalog.read() as migrated, created.read() as direct:
        assert _description(migrated) == _description(direct)


def test_the_view_has_the_columns_that_the_code_selects(catalog):
    with catalog.read() as connection:
        columns = sa.inspect(connection).get_columns("import_links")

    assert [column["name"] for column in columns] == [column.name for column in import_links.c]


def test_keys_sort_by_code_point(catalog):
    """Listings come in this order, whatever order the database's own locale sorts in."""
    keys = ["a", "B", "Ä", "a/b", "a-b", "_", "\U0001f600", "é", "\uffee", "A", "a b", "%41"]
    objects = metadata.tables["import_objects"]
    with catalog.begin() as connection:
        storage_id = any_storage(connection).id
        values = {"storage_id": storage_id, "state": "done", "etag": "", "size": 0}
        connection.execute(objects.insert(), [{**values, "key": key} for key in keys])

        assert list(connection.scalars(sa.select(objects.c.key).order_by(objects.c.key))) == sorted(
            keys
        )


def test_what_tools_deleted_goes_with_its_project(catalog):
    deleted = metadata.tables["deleted_annotations"]
    with catalog.begin() as connection:
        ids = [projects.add(connection, title).id for title in ("Cats", "Dogs")]
        row = {"source_id": "17", "by_tool": True, "deleted_at": datetime.now(UTC)}
        connection.execute(deleted.insert(), [{**row, "project_id": number} for number in ids])

        of_cats = metadata.tables["projects"].c.id == ids[0]
        connection.execute(metadata.tables["projects"].delete().where(of_cats))
        assert list(connection.scalars(sa.select(deleted.c.project_id))) == ids[1:]


def _description(connection: sa.Connection) -> list[str]:
    describe = _describe_sqlite if connection.dialect.name == "sqlite" else _describe_postgresql
    return sorted(line for line in describe(connection) if VERSION_TABLE not in line)


def _describe_sqlite(connection: sa.Connection) -> Iterator[str]:
    """Each table's columns and constraints, in any order, as SQLite keeps their text."""
    for table, sql in connection.exec_driver_sql("SELECT tbl_name, sql FROM sqlite_master"):
        # A column that was added later stands in the line of the one before it.
        for part in re.split(r"\n|, (?=\w+ (?:TEXT|BOOLEAN)\b)", sql or ""):
            text = re.sub(r"\s+", " ", part).strip(" ,\n").replace('"', "")
            yield f"{table}: {text}"


def _describe_postgresql(connection: sa.Connection) -> Iterator[str]:
    queries = [
        "SELECT table_name, column_name, data_type, is_nullable, column_default, collation_name"
        " FROM information_schema.columns WHERE table_schema = 'public'",
        "SELECT conrelid::regclass, conname, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE connamespace = 'public'::regnamespace",
        "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
        "SELECT viewname, definition FROM pg_views WHERE schemaname = 'public'",
    ]
    for query in queries:
        for row in connection.exec_driver_sql(query):
            yield ": ".join(str(value) for value in row)
