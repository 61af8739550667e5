"""Tasks and error rows: pages, details, deletion."""

from __future__ import annotations

import json

import pytest
import sqlalchemy as sa

from catalogs import any_storage, import_tasks
from labelport.catalog import problems, runs, schema, tasks
from labelport.errors import NotFound
from labelport.model import Problem


@pytest.fixture
def connection(catalog):
    with catalog.begin() as connection:
        yield connection


@pytest.fixture
def storage(connection):
    return any_storage(connection)


def test_pages_follow_one_another_in_order_of_id(connection, storage):
    ids = import_tasks(connection, storage, [f"2024/{n}.jpg" for n in range(5)])

    first = tasks.page(connection, storage_id=storage.id, limit=3)
    second = tasks.page(connection, storage_id=storage.id, after=first[-1].id, limit=3)
    assert [task.id for task in first + second] == ids
    assert [task.inner_id for task in first + second] == [1, 2, 3, 4, 5]


def test_a_page_is_of_one_project_or_storage(connection, storage):
    other = any_storage(connection, "videos")
    photos = import_tasks(connection, storage, ["2024/a.jpg"])
    videos = import_tasks(connection, other, ["2024/a.mp4"])

    assert [t.id for t in tasks.page(connection, storage_id=storage.id)] == photos
    assert [t.id for t in tasks.page(connection, project_id=storage.project_id)] == photos + videos
    assert tasks.page(connection, project_id=storage.project_id + 1) == []


def test_a_task_says_which_object_it_came_from(connection, storage):
    import_tasks(connection, storage, ["2024/ä b.jsonl"], rows=2)

    media, row = tasks.page(connection)
    assert media.link.key == row.link.key == "2024/ä b.jsonl"
    assert (media.link.row_index, row.link.row_index) == (0, 1)
    assert (media.link.row_group, media.link.etag, media.link.size) == (None, "e1", 10)
    assert media.link.object_exists is True


def test_the_link_of_a_task_is_the_row_of_the_view(connection, storage):
    import_tasks(connection, storage, ["2024/a.jpg"])

    (task,) = tasks.page(connection)
    (row,) = connection.execute(schema.import_links.select()).mappings()
    assert row["task_id"] == task.id
    for name in ("storage_id", "key", "row_group", "row_index", "object_exists", "etag", "size"):
        assert row[name] == getattr(task.link, name)


def test_details_hold_annotations_and_predictions(connection, storage):
    (task_id,) = import_tasks(connection, storage, ["2024/a.jpg"], annotated=True)

    details = tasks.get(connection, task_id)
    assert json.loads(details.task.data) == {"image": "s3://photos/2024/a.jpg"}
    assert [json.loads(a.result) for a in details.annotations] == [[{"value": 1.10}]]
    assert [(p.score, p.model_version) for p in details.predictions] == [(0.5, "m1")]
    with pytest.raises(NotFound, match="labelport tasks list"):
        tasks.get(connection, task_id + 1)


def test_deleting_takes_annotations_along_and_forgets_the_object(connection, storage):
    first, second = import_tasks(connection, storage, ["2024/a.jpg", "2024/b.jpg"], annotated=True)

    assert tasks.delete(connection, [first, 999]) == 1
    assert [task.id for task in tasks.page(connection)] == [second]
    assert _keys(connection) == ["2024/b.jpg"]
    for table in (schema.annotations, schema.predictions):
        assert list(connection.scalars(table.select().with_only_columns(table.c.task_id))) == [
            second
        ]


def test_an_object_is_known_while_it_has_a_task_left(connection, storage):
    first, second = import_tasks(connection, storage, ["2024/a.jsonl"], rows=2)

    tasks.delete(connection, [first])
    assert _keys(connection) == ["2024/a.jsonl"]
    tasks.delete(connection, [second])
    assert _keys(connection) == []


def test_an_object_that_is_being_imported_stays_known(connection, storage):
    ids = import_tasks(connection, storage, ["2024/a.jsonl"], rows=2, state="partial")

    tasks.delete(connection, ids)
    assert _keys(connection) == ["2024/a.jsonl"]


def test_many_tasks_are_deleted_in_one_go(connection, storage):
    ids = import_tasks(connection, storage, [f"2024/{n:05}.jpg" for n in range(12_000)])

    assert tasks.delete(connection, iter(ids)) == 12_000
    assert _keys(connection) == []


def test_error_rows_come_in_pages(connection, storage):
    runs.claim(connection, storage.id, run_id="r1", job="me", lease_seconds=60)
    wrong = [Problem(f"2024/{n}.json", None, "no JSON", "Repair it") for n in range(3)]
    wrong += [Problem("2024/a.parquet", 7, "no object", "Repair it", row_group=1)]
    _save(connection, storage.id, "r1", wrong)
    _save(connection, storage.id, "r0", [Problem("old", None, "x", "y")])

    first = problems.page(connection, storage.id, limit=3)
    second = problems.page(connection, storage.id, after=first.next, limit=3)
    assert first.problems + second.problems == wrong
    assert second.next is None
    assert problems.page(connection, storage.id, limit=4).next is None
    assert [p.key for p in problems.page(connection, storage.id, run_id="r0").problems] == ["old"]


def test_a_storage_that_was_never_synced_has_no_error_rows(connection, storage):
    assert problems.page(connection, storage.id) == ([], None)


def _save(connection, storage_id, run_id, found):
    for problem in found:
        connection.execute(
            schema.import_errors.insert().values(
                storage_id=storage_id,
                run_id=run_id,
                key=problem.key,
                row_group=problem.row_group,
                row_index=problem.row,
                reason=problem.reason,
                remedy=problem.remedy,
            )
        )


def _keys(connection):
    objects = schema.import_objects
    query = sa.select(objects.c.key).order_by(objects.c.key)
    return list(connection.scalars(query))
