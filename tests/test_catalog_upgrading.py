"""Upgrading: what a database is to this version, and many processes upgrading at once."""

from __future__ import annotations

import subprocess
import sys
from importlib.resources import files

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from labelport.catalog import Catalog, annotations, ledger, source_annotations, storages, users
from labelport.catalog.upgrading import (
    VERSION_TABLE,
    CatalogState,
    check,
    require_current,
    upgrade,
)
from labelport.errors import ConfigurationError
from labelport.model import AnnotationRow, Role


@pytest.fixture
def empty(empty_url):
    with Catalog(empty_url) as catalog:
        yield catalog


def test_an_empty_database_becomes_a_catalog(empty):
    assert check(empty) is CatalogState.EMPTY
    assert upgrade(empty) is True
    assert check(empty) is CatalogState.UP_TO_DATE


def test_upgrading_twice_changes_nothing(catalog):
    assert upgrade(catalog) is False


def test_a_catalog_of_the_first_version_keeps_what_it_holds(empty):
    """All that refers to storages and annotations stays, and roles that never were are tamed."""
    _upgrade_to(empty, "0001")
    assert check(empty) is CatalogState.BEHIND
    with empty.begin() as connection:
        for statement in FIRST_VERSION:
            connection.exec_driver_sql(statement)

    assert upgrade(empty) is True
    assert check(empty) is CatalogState.UP_TO_DATE
    with empty.read() as connection:
        photos = storages.get(connection, "photos")
        assert (photos.presign_seconds, photos.serve_any_key) == (60, False)
        (link,) = ledger.page(connection, photos.id)
        assert link.annotation_id == 1
        assert annotations.get(connection, 1).completed_by == "ann@example.com"
        assert users.role(connection, 1, 1) is Role.ANNOTATOR
        assert users.role(connection, 2, 1) is Role.MANAGER


#: A project with a storage, a task, an annotation, its export and two members.
FIRST_VERSION = [
    "INSERT INTO projects (title) VALUES ('Cats')",
    "INSERT INTO users (email) VALUES ('ann@example.com'), ('bob@example.com')",
    "INSERT INTO memberships VALUES (1, 1, 'owner'), (2, 1, 'manager')",
    "INSERT INTO storages (project_id, name, direction, scheme, bucket, presign_seconds)"
    " VALUES (1, 'photos', 'export', 's3', 'photos', 60)",
    "INSERT INTO sync_shards (storage_id, run_id, shard) VALUES (1, 'r1', 0)",
    """INSERT INTO tasks (project_id, inner_id, data) VALUES (1, 1, '{"a": 1}')""",
    "INSERT INTO annotations (task_id, project_id, result, completed_by)"
    " VALUES (1, 1, '[]', 'ann@example.com')",
    "INSERT INTO export_links (storage_id, annotation_id, task_id, key) VALUES (1, 1, 1, '1')",
]


def test_what_tools_delete_is_remembered_from_the_third_version_on(empty):
    _upgrade_to(empty, "0002")
    assert check(empty) is CatalogState.BEHIND
    with empty.begin() as connection:
        for statement in FIRST_VERSION:
            connection.exec_driver_sql(statement.replace("'owner'", "'annotator'"))
        connection.exec_driver_sql("UPDATE annotations SET source_id = '17'")

    assert upgrade(empty) is True
    assert check(empty) is CatalogState.UP_TO_DATE
    with empty.begin() as connection:
        (link,) = ledger.page(connection, 1)
        assert source_annotations.delete(connection, 1, ["17"]) == 1
        assert source_annotations.save(connection, "17", link.task_id, AnnotationRow("[]")) is None


def _upgrade_to(catalog: Catalog, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(files("labelport.catalog") / "migrations"))
    with catalog.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def test_checking_changes_nothing(empty):
    check(empty)

    with empty.read() as connection:
        assert sa.inspect(connection).get_table_names() == []


def test_a_current_catalog_may_be_used(catalog):
    require_current(catalog)


def test_a_flow_is_told_to_upgrade(empty):
    with pytest.raises(ConfigurationError, match="labelport db upgrade"):
        require_current(empty)


def test_another_programs_database_is_left_alone(empty):
    with empty.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE tasks (id INTEGER)")

    assert check(empty) is CatalogState.NOT_OURS
    with pytest.raises(ConfigurationError, match="another program"):
        upgrade(empty)


def test_a_newer_catalog_is_left_alone(catalog):
    with catalog.begin() as connection:
        connection.exec_driver_sql(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")

    assert check(catalog) is CatalogState.NEWER
    with pytest.raises(ConfigurationError, match="upgrade this installation"):
        upgrade(catalog)


def test_a_failed_upgrade_leaves_nothing_behind(empty):
    """Migrations run in one transaction, DDL included: here the last step of the first fails."""
    with empty.begin() as connection:
        connection.exec_driver_sql("CREATE VIEW import_links AS SELECT 1 AS one")

    with pytest.raises(sa.exc.DBAPIError, match="import_links"):
        upgrade(empty)

    with empty.read() as connection:
        assert sa.inspect(connection).get_table_names() == []


def test_processes_that_upgrade_at_once_all_succeed(empty_url):
    """One does the work, the others wait for it."""
    code = (
        "import sys; from labelport.catalog import Catalog, upgrading\n"
        "with Catalog(sys.argv[1]) as catalog: print(upgrading.upgrade(catalog))"
    )
    command = [sys.executable, "-W", "error", "-c", code, empty_url]
    upgrades = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(5)
    ]
    answers = [process.communicate(timeout=60) for process in upgrades]

    assert sorted(out.strip() for out, _ in answers) == ["False"] * 4 + ["True"]
    assert [error for _, error in answers] == [""] * 5


@pytest.mark.parametrize(
    "url",
    ["sqlite:////no/such/directory/a.db", "postgresql://me:hunter2@127.0.0.1:1/labelport"],
    ids=["sqlite", "postgresql"],
)
@pytest.mark.parametrize("use", [check, upgrade, require_current], ids=lambda use: use.__name__)
def test_a_database_that_cannot_be_opened_is_named_without_its_password(url, use):
    with Catalog(url) as catalog, pytest.raises(ConfigurationError) as caught:
        use(catalog)

    assert "cannot be opened" in str(caught.value)
    assert "LABELPORT_CATALOG_URL" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_missing_driver_is_named_with_its_extra():
    code = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from labelport.catalog import Catalog\n"
        "Catalog('postgresql://me:hunter2@host/labelport')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert "pip install 'airflow-provider-labelport[postgres]'" in done.stderr
