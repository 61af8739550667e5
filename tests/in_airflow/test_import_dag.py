"""The import dag, run end to end by Airflow against a real S3 server."""

import json

import pytest
import sqlalchemy as sa

from labelport import syncing
from labelport.catalog import problems
from labelport.model import Status


@pytest.fixture
def run_import(run_dag):
    return lambda **params: run_dag("import_storage", **params)


@pytest.fixture
def task_data(catalog):
    def data():
        with catalog.read() as connection:
            return sorted(connection.scalars(sa.text("SELECT data FROM tasks")))

    return data


def xcoms(dag_run):
    """Every XCom of a dag run: (task id, map index, key, value)."""
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session

    with create_session() as session:
        rows = session.scalars(sa.select(XComModel).where(XComModel.run_id == dag_run.run_id))
        return [
            (row.task_id, row.map_index, row.key, XComModel.deserialize_value(row)) for row in rows
        ]


def states(dag_run):
    """The states of a dag run's tasks, by id; mapped ones once each."""
    return {ti.task_id: ti.state for ti in dag_run.get_task_instances()}


def test_every_picture_becomes_a_task_and_a_second_run_makes_none(
    run_import, bucket, add_storage, state_of, task_data
):
    bucket.put({f"img/{n}.jpg": b"x" for n in range(7)} | {"img2k/no.jpg": b"x"})
    storage = add_storage(prefix="img", use_blob_urls=True)

    first = run_import(storage="photos")
    after_first = state_of(storage)
    second = run_import(storage="photos")
    after_second = state_of(storage)

    assert first.state == second.state == "success"
    assert len(task_data()) == 7
    assert (after_first.status, after_first.counters.created) == (Status.COMPLETED, 7)
    assert after_first.last_sync_job == f"import_storage/{first.run_id}"
    assert (after_second.counters.created, after_second.counters.existed) == (0, 7)


def test_json_tasks_are_imported_with_their_rows(run_import, bucket, add_storage, task_data):
    rows = [{"text": str(n)} for n in range(3)]
    bucket.put({"one.json": b'{"text": "one"}', "many.json": json.dumps(rows).encode()})
    add_storage()

    assert run_import(storage="photos").state == "success"
    assert sorted(json.loads(data)["text"] for data in task_data()) == ["0", "1", "2", "one"]


def test_xcoms_are_small_and_hold_no_keys(run_import, bucket, add_storage):
    bucket.put({f"secret-patient-{n}.jpg": b"x" for n in range(50)})
    add_storage(use_blob_urls=True)

    pushed = xcoms(run_import(storage="photos", shards=3))

    progress = [value for *_, key, value in pushed if key == "progress"]
    assert sum(report["created"] for report in progress) == 50
    assert all(set(p) == {"scanned", "created", "existed", "errors", "rate"} for p in progress)
    assert "secret-patient" not in json.dumps(pushed)
    assert max(len(json.dumps(value)) for *_, value in pushed) < 500


def test_bad_objects_end_a_sync_completed_with_errors(
    run_import, bucket, add_storage, state_of, catalog
):
    bucket.put({"good.json": b'{"text": "a"}', "bad.json": b"{nope", "empty.json": b""})
    storage = add_storage()

    result = run_import(storage="photos")

    assert result.state == "success"
    assert state_of(storage).status is Status.COMPLETED_WITH_ERRORS
    with catalog.read() as connection:
        found = problems.page(connection, storage.id).problems
    assert sorted(problem.key for problem in found) == ["bad.json", "empty.json"]
    assert all(problem.reason and problem.remedy for problem in found)


def test_a_strict_import_fails_its_dag_run_on_bad_objects(run_dag, bucket, add_storage, state_of):
    bucket.put({"good.json": b'{"text": "a"}', "bad.json": b"{nope"})
    storage = add_storage()

    assert run_dag("strict").state == "failed"
    assert state_of(storage).status is Status.COMPLETED_WITH_ERRORS


def test_more_errors_than_max_errors_fail_the_sync(run_import, bucket, add_storage, state_of):
    bucket.put({f"{n}.json": b"{nope" for n in range(5)})
    storage = add_storage()

    result = run_import(storage="photos", max_errors=2, shards=1)

    assert result.state == "failed"
    assert state_of(storage).status is Status.FAILED
    assert "TooManyErrors" in state_of(storage).traceback


def test_a_second_sync_is_refused_and_leaves_the_first_alone(
    run_import, bucket, add_storage, state_of, catalog, capfd
):
    storage = add_storage()
    syncing.queue(catalog, storage, run_id="other", job="other/run")

    result = run_import(storage="photos")

    assert result.state == "failed"
    assert states(result)["import.validate"] == "failed"
    assert "is queued by other/run" in capfd.readouterr().out
    assert (state_of(storage).status, state_of(storage).run_id) == (Status.QUEUED, "other")


def test_a_bucket_that_is_gone_fails_the_sync_at_once(run_import, bucket, add_storage, state_of):
    storage = add_storage()
    bucket.client.delete_bucket(Bucket=bucket.name)

    result = run_import(storage="photos")

    assert result.state == "failed"
    assert state_of(storage).status is Status.FAILED
    assert "create the bucket" in state_of(storage).traceback


def test_an_unknown_storage_fails_with_the_remedy(run_import, catalog, capfd):
    assert run_import(storage="nowhere").state == "failed"
    assert "labelport storages list" in capfd.readouterr().out


def test_a_storage_is_validated_in_a_task(run_dag, bucket, add_storage, capfd):
    bucket.put({"secret-patient.jpg": b"x"})
    add_storage()

    result = run_dag("validate")

    assert result.state == "success"
    assert [value for *_, key, value in xcoms(result) if key == "return_value"] == [
        ["bucket", "objects", "read"]
    ]
    assert "read ok" in capfd.readouterr().out
