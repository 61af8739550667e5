"""Projects and storages: what may be saved, found, changed and removed."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from catalogs import any_storage, import_tasks
from labelport.catalog import bulk, projects, runs, schema, shards, storages, tasks
from labelport.errors import ConfigurationError, NotFound, SyncRefused
from labelport.model import Counters, Direction, KeyRange, Status


@pytest.fixture
def connection(catalog):
    with catalog.begin() as connection:
        yield connection


@pytest.fixture
def project(connection):
    return projects.add(connection, "Cats")


def test_a_project_is_found_by_title_and_by_id(connection):
    cats = projects.add(connection, "Cats & dogs", maximum_annotations=3)
    projects.add(connection, "Birds")

    assert cats.maximum_annotations == 3
    assert cats.created_at.utcoffset().total_seconds() == 0
    assert projects.get(connection, "Cats & dogs") == cats
    assert projects.get(connection, cats.id) == cats
    assert projects.get(connection, str(cats.id)) == cats
    assert [project.title for project in projects.list_all(connection)] == ["Cats & dogs", "Birds"]


def test_two_projects_cannot_share_a_title(connection, project):
    with pytest.raises(ConfigurationError, match="choose another title"):
        projects.add(connection, "Cats")

    assert projects.list_all(connection) == [project]


@pytest.mark.parametrize("name", ["", " ", " a", "a\n", "a\x1b[1m", "2024", "٣", "x" * 201])
def test_a_name_that_would_confuse_is_refused(connection, project, name):
    with pytest.raises(ConfigurationError, match="project title"):
        projects.add(connection, name)
    with pytest.raises(ConfigurationError, match="storage name"):
        storages.add(connection, project.id, name, "s3://photos")


@pytest.mark.parametrize("key", ["Dogs", 99, "99", "9" * 30])
def test_what_is_not_there_is_not_found(connection, key):
    with pytest.raises(NotFound, match="labelport projects list"):
        projects.get(connection, key)
    with pytest.raises(NotFound, match="labelport storages list"):
        storages.get(connection, key)


def test_a_storage_has_defaults_and_is_found_by_name_and_by_id(connection, project):
    added = storages.add(connection, project.id, "photos", "s3://photos/2024")

    assert (added.scheme, added.bucket, added.prefix) == ("s3", "photos", "2024")
    assert added.direction is Direction.IMPORT
    assert (added.recursive_scan, added.use_blob_urls, added.presign) == (True, False, True)
    assert storages.get(connection, "photos") == added
    assert storages.get(connection, added.id) == added


def test_every_setting_of_a_storage_is_saved(connection, project):
    settings = {
        "description": "What the camera saw",
        "conn_id": "aws_labels",
        "regex_filter": r".*\.jpe?g$",
        "recursive_scan": False,
        "use_blob_urls": True,
        "presign": False,
        "presign_seconds": 60,
        "can_delete_objects": True,
        "synchronizable": False,
    }
    added = storages.add(
        connection, project.id, "out", "gs://labels/x", Direction.EXPORT, **settings
    )

    assert added.direction is Direction.EXPORT
    assert {name: getattr(added, name) for name in settings} == settings
    assert storages.get(connection, "out") == added


@pytest.mark.parametrize(
    ("location", "prefix"),
    [
        ("s3://photos", ""),
        ("s3://photos/", ""),
        ("s3://photos//a", "/a"),
        ("s3://photos/a/", "a/"),
        ("s3://photos/a?b#c%20 d", "a?b#c%20 d"),
    ],
)
def test_a_prefix_is_taken_literally(connection, project, location, prefix):
    assert storages.add(connection, project.id, "photos", location).prefix == prefix


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("photos/2024", "scheme://bucket/prefix"),
        ("s3:///2024", "scheme://bucket/prefix"),
        ("ftp://photos/2024", "s3://, gs://, azure-blob://"),
        ("s3://AKIA:hunter2@photos/2024", "Airflow connection"),
        ("s3://photos?region=eu/2024", "Airflow connection"),
        ("s3://pho tos/2024", "bucket"),
        ("s3://photos/a\0b", "NUL"),
        ("s3://photos/" + "é" * 513, "1024 bytes"),
    ],
    ids=lambda value: value[:12],
)
def test_a_location_that_cannot_work_is_refused(connection, project, location, message):
    with pytest.raises(ConfigurationError, match=message) as caught:
        storages.add(connection, project.id, "photos", location)

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("seconds", [0, -1, 604_801])
def test_a_signed_url_lives_a_week_at_most(connection, project, seconds):
    with pytest.raises(ConfigurationError, match="choose 1 to 604800"):
        storages.add(connection, project.id, "photos", "s3://photos", presign_seconds=seconds)


def test_a_regex_must_compile(connection, project):
    with pytest.raises(ConfigurationError, match="not a regular expression"):
        storages.add(connection, project.id, "photos", "s3://photos", regex_filter="*.jpg")


def test_an_empty_regex_or_connection_id_is_none(connection, project):
    added = storages.add(
        connection, project.id, "photos", "s3://photos", regex_filter="", conn_id=""
    )

    assert (added.regex_filter, added.conn_id) == (None, None)


@pytest.mark.parametrize(
    "secret",
    [
        "aws://KEY:secret@/?region_name=eu",
        "me@example",
        "AKIAIOSFODNN7EXAMPLE",
        "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY=",
        '{"type": "service_account"}',
        "x" * 201,
    ],
)
def test_a_secret_for_a_connection_id_is_refused_and_not_repeated(connection, project, secret):
    with pytest.raises(ConfigurationError, match="id of an Airflow connection") as caught:
        storages.add(connection, project.id, "photos", "s3://photos", conn_id=secret)

    assert secret not in str(caught.value)


def test_a_storage_needs_a_project(connection):
    with pytest.raises(NotFound, match="no project 7"):
        storages.add(connection, 7, "photos", "s3://photos")


def test_two_storages_cannot_share_a_name(connection, project):
    storages.add(connection, project.id, "photos", "s3://one")

    with pytest.raises(ConfigurationError, match="choose another name"):
        storages.add(connection, project.id, "photos", "s3://two")
    assert len(storages.list_all(connection)) == 1


@pytest.mark.parametrize(
    ("location", "settings"),
    [
        ("s3://photos/2024", {}),
        ("s3://photos/2024/", {}),
        ("s3://photos", {}),
        ("s3://photos/2024/may", {}),
        ("s3://photos/2024", {"recursive_scan": False}),
    ],
)
def test_storages_of_a_project_must_not_import_the_same_objects(
    connection, project, location, settings
):
    storages.add(connection, project.id, "first", "s3://photos/2024")

    with pytest.raises(ConfigurationError, match="two tasks each"):
        storages.add(connection, project.id, "second", location, **settings)
    storages.add(connection, project.id, "second", location, allow_overlap=True, **settings)


@pytest.mark.parametrize(
    ("location", "settings"),
    [
        ("s3://photos/2024b", {}),
        ("s3://other/2024", {}),
        ("gs://photos/2024", {}),
        ("s3://photos", {"recursive_scan": False}),
        ("s3://photos/2024", {"direction": Direction.EXPORT}),
        ("s3://photos/2024", {"synchronizable": False}),
    ],
)
def test_storages_that_import_other_objects_may_be_neighbours(
    connection, project, location, settings
):
    storages.add(connection, project.id, "first", "s3://photos/2024")

    storages.add(connection, project.id, "second", location, **settings)


def test_of_overlapping_storages_added_at_once_one_is_refused(catalog):
    with catalog.begin() as connection:
        project_id = projects.add(connection, "Cats").id
    together = threading.Barrier(4)

    def add(number: int) -> bool:
        with catalog.begin() as connection:
            if connection.dialect.name == "postgresql":  # SQLite has one writer at a time
                together.wait(timeout=30)
            try:
                storages.add(connection, project_id, f"photos {number}", "s3://photos/2024")
            except ConfigurationError:
                return False
            return True

    with ThreadPoolExecutor(4) as threads:
        assert sorted(threads.map(add, range(4))) == [False, False, False, True]


def test_settings_change_while_a_batch_is_being_saved(catalog):
    """The locks of the two are no others' business: neither waits, nor do they deadlock."""
    with catalog.begin() as connection:
        storage = any_storage(connection)
    if catalog.engine.dialect.name == "sqlite":
        pytest.skip("SQLite has one writer at a time")

    with catalog.begin() as batch, catalog.begin() as connection:
        assert bulk.lock_parents(batch, project_id=storage.project_id, storage_id=storage.id)
        connection.exec_driver_sql("SET lock_timeout = '2s'")
        assert storages.update(connection, storage.id, description="New").description == "New"


def test_another_project_may_import_the_same_objects(connection, project):
    storages.add(connection, project.id, "first", "s3://photos/2024")

    dogs = projects.add(connection, "Dogs")
    storages.add(connection, dogs.id, "second", "s3://photos/2024")
    assert [s.name for s in storages.list_all(connection)] == ["first", "second"]
    assert [s.name for s in storages.list_all(connection, dogs.id)] == ["second"]


def test_settings_change_and_the_rest_stays(connection, project):
    added = storages.add(connection, project.id, "photos", "s3://photos", presign_seconds=60)

    changed = storages.update(connection, added.id, name="pictures", presign=False)
    assert (changed.name, changed.presign, changed.presign_seconds) == ("pictures", False, 60)
    assert storages.get(connection, added.id) == changed


def test_a_change_is_validated_too(connection, project):
    added = storages.add(connection, project.id, "photos", "s3://photos")

    with pytest.raises(ConfigurationError, match="not a regular expression"):
        storages.update(connection, added.id, regex_filter="(")
    with pytest.raises(ConfigurationError, match="storage name"):
        storages.update(connection, added.id, name="")
    with pytest.raises(NotFound):
        storages.update(connection, added.id + 1, name="x")


def test_the_location_changes_until_objects_are_imported(connection):
    storage = any_storage(connection)
    moved = storages.update(connection, storage.id, location="s3://photos/2025")
    import_tasks(connection, moved, ["2025/a.jpg"])

    assert moved.location == "s3://photos/2025"
    with pytest.raises(ConfigurationError, match="add another storage"):
        storages.update(connection, storage.id, location="s3://photos/2026")


def test_a_storage_that_was_never_synced(connection):
    state = storages.state(connection, any_storage(connection).id)

    assert state.status is Status.INITIALIZED
    assert (state.last_sync, state.last_sync_count, state.run_id) == (None, None, None)
    assert state.counters == Counters()
    with pytest.raises(NotFound):
        storages.state(connection, 99)


def test_the_state_sums_up_the_shards_of_the_current_run(connection):
    storage = any_storage(connection)
    runs.claim(connection, storage.id, run_id="r1", job="dag/run", lease_seconds=60)
    shards.create(connection, storage.id, "r1", [KeyRange("", "m"), KeyRange("m", None)])
    for index, scanned in enumerate((5, 7)):
        shard = shards.take(connection, storage.id, "r1", index, owner="me", worker="host:1")
        shards.advance(connection, shard, Counters(scanned=scanned, errors=1), "k")

    state = storages.state(connection, storage.id)
    assert state.counters == Counters(scanned=12, errors=2)
    assert (state.status, state.run_id, state.last_sync_job) == (Status.QUEUED, "r1", "dag/run")
    assert state.lease_until > state.time_queued


def test_removing_a_storage_keeps_its_tasks_without_their_link(connection):
    storage = any_storage(connection)
    kept = import_tasks(connection, storage, ["2024/a.jpg", "2024/b.jpg"])

    assert storages.remove(connection, storage.id) == (2, 0)
    left = tasks.page(connection, project_id=storage.project_id)
    assert [task.id for task in left] == kept
    assert [task.link for task in left] == [None, None]
    assert _count(connection, schema.import_objects) == 0
    with pytest.raises(NotFound):
        storages.get(connection, storage.id)


def test_removing_a_storage_can_take_its_tasks_along(connection):
    storage, other = any_storage(connection), any_storage(connection, "videos")
    import_tasks(connection, storage, ["2024/a.jpg", "2024/b.jpg"], annotated=True)
    (kept,) = import_tasks(connection, other, ["2024/a.mp4"], annotated=True)

    assert storages.remove(connection, storage.id, delete_tasks=True) == (0, 2)
    assert [task.id for task in tasks.page(connection)] == [kept]
    assert len(tasks.get(connection, kept).annotations) == 1
    for table in (schema.annotations, schema.predictions, schema.import_objects):
        assert _count(connection, table) == 1


def test_a_storage_is_not_removed_during_a_sync_unless_forced(connection):
    storage = any_storage(connection)
    runs.claim(connection, storage.id, run_id="r1", job="dag/run", lease_seconds=60)
    shards.create(connection, storage.id, "r1", [KeyRange()])
    shard = shards.take(connection, storage.id, "r1", 0, owner="me", worker="host:1")

    with pytest.raises(SyncRefused, match="running"):
        storages.remove(connection, storage.id)
    storages.remove(connection, storage.id, force=True)
    assert shards.advance(connection, shard, Counters(), "k") is False


def test_a_dead_run_does_not_keep_its_storage(connection):
    storage = any_storage(connection)
    runs.claim(connection, storage.id, run_id="r1", job="dag/run", lease_seconds=-1)

    assert storages.remove(connection, storage.id) == (0, 0)


def _count(connection, table):
    return connection.scalar(sa.select(sa.func.count()).select_from(table))
