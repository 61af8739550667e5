"""The export dag, run end to end by Airflow against a real S3 server."""

import json

import pytest
import sqlalchemy as sa

from labelport import syncing
from labelport.catalog import annotations, events, ledger
from labelport.model import Direction, Status


@pytest.fixture
def run_export(run_dag):
    return lambda **params: run_dag("export_storage", storage="labels", **params)


@pytest.fixture
def ledger_of(catalog):
    def rows(storage):
        with catalog.read() as connection:
            return ledger.page(connection, storage.id)

    return rows


@pytest.fixture
def watermark(catalog):
    def read(storage):
        with catalog.read() as connection:
            return events.watermark(connection, storage.id)

    return read


def returned(dag_run, task_id):
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session

    with create_session() as session:
        rows = session.scalars(
            sa.select(XComModel).where(
                XComModel.run_id == dag_run.run_id,
                XComModel.task_id == task_id,
                XComModel.key == "return_value",
            )
        )
        return [XComModel.deserialize_value(row) for row in rows]


def asset_events(dag_run):
    """What a dag run told of assets: (asset's name, extra)."""
    from airflow.models.asset import AssetEvent, AssetModel
    from airflow.utils.session import create_session

    with create_session() as session:
        query = (
            sa.select(AssetModel.name, AssetEvent.extra)
            .join(AssetModel, AssetModel.id == AssetEvent.asset_id)
            .where(AssetEvent.source_run_id == dag_run.run_id)
        )
        return [tuple(row) for row in session.execute(query)]


def test_every_annotation_becomes_an_object_and_a_second_run_writes_none(
    run_export, bucket, labels, annotate, ledger_of, state_of, watermark
):
    ids = annotate(7)

    first = run_export(shards=3)
    written = bucket.get("out/")
    after_first = state_of(labels)
    second = run_export(shards=3)

    assert first.state == second.state == "success"
    assert len(written) == 7
    assert {json.loads(body)["id"] for body in written.values()} == set(ids)
    assert [row.annotation_id for row in ledger_of(labels)] == ids
    assert {row.key for row in ledger_of(labels)} == set(written)
    assert all(row.object_exists and row.error is None for row in ledger_of(labels))
    assert (after_first.status, after_first.counters.created) == (Status.COMPLETED, 7)
    assert after_first.last_sync_job == f"export_storage/{first.run_id}"
    assert watermark(labels) == 7
    (report,) = returned(second, "export.finish")
    assert (report["created"], report["updated"], report["existed"]) == (0, 0, 7)


def test_what_changed_is_written_anew_and_what_was_deleted_goes(
    run_export, catalog, bucket, labels, annotate
):
    one, two, _ = annotate(3)
    run_export()
    before = bucket.get("out/")
    with catalog.begin() as connection:
        annotations.update(connection, one, result='[{"value": {"choices": ["dog"]}}]')
        annotations.delete(connection, two)

    result = run_export()

    (report,) = returned(result, "export.finish")
    assert (report["updated"], report["existed"], report["missing"]) == (1, 1, 1)
    assert len(bucket.get("out/").items() - before.items()) == 1
    assert len(bucket.get("out/")) == 2


def test_only_new_ones_leave_what_changed_and_the_watermark_alone(
    run_export, catalog, bucket, labels, annotate, watermark
):
    (one,) = annotate(1)
    run_export()
    with catalog.begin() as connection:
        annotations.update(connection, one, result="[]")
    annotate(1)

    result = run_export(select="new")

    (report,) = returned(result, "export.finish")
    assert (report["created"], report["updated"]) == (1, 0)
    assert watermark(labels) == 1


def test_counts_are_told_with_the_storages_asset(run_export, labels, annotate):
    annotate(2)

    ((name, extra),) = asset_events(run_export())

    assert name == "labelport_exported labels"
    assert (extra["status"], extra["created"], extra["errors"]) == ("completed", 2, 0)
    assert asset_events(run_export()) == []


def test_an_export_to_a_bucket_that_is_gone_fails(run_export, bucket, labels, annotate, state_of):
    annotate(1)
    bucket.client.delete_bucket(Bucket=bucket.name)

    assert run_export().state == "failed"
    assert state_of(labels).status is Status.FAILED
    assert "create the bucket" in state_of(labels).traceback


def test_a_failed_annotation_fails_the_dag_run_and_is_exported_by_the_next(
    run_export, bucket, labels, annotate, ledger_of, monkeypatch, watermark
):
    good, bad = annotate(2)
    refuse = failing_put(f"/{bad}")
    with monkeypatch.context() as patched:
        refuse(patched)
        first = run_export(shards=1)
    after_first = ledger_of(labels)
    marked = watermark(labels)
    second = run_export(shards=1)

    assert (first.state, second.state) == ("failed", "success")
    assert [(row.annotation_id, row.object_exists) for row in after_first] == [
        (good, True),
        (bad, False),
    ]
    assert after_first[1].error
    assert marked == 0
    (report,) = returned(second, "export.finish")
    assert (report["created"], report["existed"]) == (1, 1)
    assert len(bucket.get("out/")) == 2


def failing_put(ending):
    """Makes every store refuse to put keys with this *ending*: no server here can be told to."""
    from labelport.errors import InvalidKey
    from labelport.stores._http import HttpStore

    put = HttpStore.put

    async def refuse(self, key, body, **arguments):
        if key.removesuffix(".json").endswith(ending):
            raise InvalidKey(f"{key} is refused")
        return await put(self, key, body, **arguments)

    return lambda patched: patched.setattr(HttpStore, "put", refuse)


def test_an_export_is_refused_while_another_run_syncs(
    run_export, catalog, labels, annotate, state_of, capfd
):
    syncing.queue(catalog, labels, run_id="other", job="other/run")

    assert run_export().state == "failed"
    assert "is queued by other/run" in capfd.readouterr().out
    assert (state_of(labels).status, state_of(labels).run_id) == (Status.QUEUED, "other")


def test_an_import_storage_is_not_exported_to(run_dag, add_storage, bucket, capfd):
    bucket.put({"a.jpg": b"x"})
    add_storage("photos")

    assert run_dag("export_storage", storage="photos").state == "failed"
    assert "photos is an import storage" in capfd.readouterr().out


def test_exported_objects_of_deleted_annotations_are_deleted_alone(
    run_dag, run_export, catalog, bucket, labels, annotate
):
    one, two = annotate(2)
    run_export()
    with catalog.begin() as connection:
        annotations.update(connection, one, result="[]")
        annotations.delete(connection, two)
    before = bucket.get("out/")

    result = run_dag("delete_exported")

    assert result.state == "success"
    (report,) = returned(result, "delete")
    assert (report["missing"], report["updated"]) == (1, 0)
    after = bucket.get("out/")
    assert len(after) == 1
    assert after.items() <= before.items()


def test_the_shipped_group_needs_no_more_than_a_storage(run_dag, bucket, labels, annotate):
    annotate(1)

    assert run_dag("export_one_line").state == "success"
    assert len(bucket.get("out/")) == 1


def test_a_snapshot_is_published_last(run_export, bucket, add_storage, annotate, state_of):
    labels = add_storage("labels", "out", direction=Direction.EXPORT, export_format="jsonl")
    annotate(3)

    result = run_export(shards=2)

    assert result.state == "success"
    assert state_of(labels).status is Status.COMPLETED
    names = [key.rpartition("/")[2] for key in bucket.get("out/")]
    assert {"_MANIFEST.json", "_SUCCESS"} < set(names)


def test_a_snapshot_that_cannot_be_published_fails_its_sync(
    run_export, bucket, add_storage, annotate, state_of, monkeypatch
):
    labels = add_storage("labels", "out", direction=Direction.EXPORT, export_format="jsonl")
    annotate(1)
    failing_put("_SUCCESS")(monkeypatch)

    assert run_export(shards=1).state == "failed"
    assert state_of(labels).status is Status.FAILED
    assert "_SUCCESS" in state_of(labels).traceback
