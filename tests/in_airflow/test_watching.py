"""From a row of the outbox to an asset event, and from there to an export."""

import asyncio
import json
from datetime import timedelta

import pytest

from labelport.airflow import triggers
from labelport.airflow.assets import annotations_asset
from labelport.airflow.triggers import AnnotationEventsTrigger
from labelport.catalog import annotations, events, projects, storages
from labelport.errors import ConfigurationError
from labelport.model import Direction

SECONDS = 0.01


class StateStore:
    """An asset's state store, in memory."""

    def __init__(self):
        self.values = {}

    def get(self, key, default=None):
        return json.loads(self.values.get(key, "null")) or default

    def set(self, key, value):
        self.values[key] = json.dumps(value)


@pytest.fixture
def watch(home):
    """Runs a new trigger for its next *count* events; it stores its cursor after each."""

    def watch(store, count=1, project=None):
        trigger = AnnotationEventsTrigger(project=project, poll_seconds=SECONDS)
        trigger.asset_state_store = store

        async def collect():
            found = []
            run = trigger.run()
            async for event in run:
                found.append(event.payload)
                if len(found) == count:
                    break
            looking = asyncio.ensure_future(anext(run))  # goes on as the triggerer would
            done, _ = await asyncio.wait([looking], timeout=0.3)
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)
            await run.aclose()
            await trigger.cleanup()
            return found, bool(done)

        return asyncio.run(collect())

    return watch


def test_rows_of_the_outbox_become_one_event_with_their_numbers(catalog, annotate, watch):
    one, two, _ = annotate(3)
    with catalog.begin() as connection:
        annotations.update(connection, one, result="[]")
        annotations.delete(connection, two)

    found, more = watch(StateStore())

    numbers = {"created": 3, "updated": 1, "deleted": 1}
    assert found == [{"project": "Cats", "first": 1, "last": 5} | numbers]
    assert not more


def test_a_watcher_goes_on_at_its_cursor(annotate, watch):
    store = StateStore()
    annotate(2)
    watch(store)
    annotate(1)

    found, more = watch(store)

    assert [(event["first"], event["last"]) for event in found] == [(3, 3)]
    assert not more


def test_a_watcher_without_a_state_store_begins_with_all(annotate, watch):
    annotate(2)

    (event,), _ = watch(None)

    assert event["created"] == 2


def test_each_project_has_its_cursor(catalog, annotate, watch, add_storage):
    annotate(1)
    with catalog.begin() as connection:
        projects.add(connection, "Dogs")

    assert watch(StateStore(), project="Cats")[0][0]["project"] == "Cats"


def test_an_error_that_passes_is_survived(catalog, annotate, watch, monkeypatch):
    annotate(1)
    opened = []

    def sometimes(conn_id):
        opened.append(conn_id)
        if len(opened) < 3:
            raise ConfigurationError("the connection is not there yet")
        return catalog

    monkeypatch.setattr(triggers, "open_catalog", sometimes)

    (event,), _ = watch(StateStore())

    assert event["created"] == 1
    assert len(opened) == 3


def test_a_trigger_is_the_same_whenever_a_dag_is_parsed(home):
    first, again = (AnnotationEventsTrigger(project="Cats") for _ in range(2))
    path, arguments = first.serialize()

    assert first.serialize() == again.serialize()
    assert AnnotationEventsTrigger.hash(path, arguments) == AnnotationEventsTrigger.hash(
        *again.serialize()
    )
    assert AnnotationEventsTrigger(**arguments).serialize() == (path, arguments)


def test_what_is_watched_apart_is_an_asset_of_its_own(home):
    watched = [
        annotations_asset(),
        annotations_asset("Cats"),
        annotations_asset(catalog_conn_id="other"),
        annotations_asset("Cats", "other"),
    ]

    assert len({asset.name for asset in watched}) == len({asset.uri for asset in watched}) == 4


@pytest.fixture
def watermark(catalog):
    def read(storage):
        with catalog.read() as connection:
            return events.watermark(connection, storage.id)

    return read


def task_states(dag_run):
    return {ti.task_id: ti.state for ti in dag_run.get_task_instances()}


def test_what_changed_is_exported_to_every_storage_of_its_project(
    run_dag, catalog, bucket, add_storage, annotate, watermark
):
    here = add_storage("here", "one", direction=Direction.EXPORT)
    there = add_storage("there", "two", direction=Direction.EXPORT)
    ids = annotate(2)

    first = run_dag("export_on_change")
    with catalog.begin() as connection:
        annotations.update(connection, ids[0], result="[]")
    second = run_dag("export_on_change")

    assert first.state == second.state == "success"
    assert [json.loads(body)["result"] for _, body in sorted(bucket.get("one/").items())] == [
        [],
        [{"value": {"choices": ["cat"]}}],
    ]
    assert len(bucket.get("two/")) == 2
    assert watermark(here) == watermark(there) == 3


def test_a_run_with_nothing_to_do_exports_nothing(run_dag, labels, annotate):
    annotate(1)
    run_dag("export_on_change")

    again = run_dag("export_on_change")

    assert again.state == "success"
    assert task_states(again)["export"] == "skipped"


def test_deleting_an_annotation_deletes_its_object(run_dag, catalog, bucket, labels, annotate):
    one, _ = annotate(2)
    run_dag("export_on_change")
    with catalog.begin() as connection:
        annotations.delete(connection, one)

    assert run_dag("export_on_change").state == "success"
    assert len(bucket.get("out/")) == 1


def test_an_export_that_fails_leaves_the_watermark_for_the_next(
    run_dag, dags, bucket, labels, annotate, watermark, monkeypatch
):
    annotate(1)
    bucket.client.delete_bucket(Bucket=bucket.name)
    monkeypatch.setattr(
        dags["export_on_change"].get_task("export"),
        "partial_kwargs",
        {**dags["export_on_change"].get_task("export").partial_kwargs, "retry_delay": timedelta(0)},
    )

    assert run_dag("export_on_change").state == "failed"
    assert watermark(labels) == 0
    bucket.client.create_bucket(Bucket=bucket.name)
    assert run_dag("export_on_change").state == "success"
    assert (len(bucket.get("out/")), watermark(labels)) == (1, 1)


def test_another_projects_annotations_start_no_export(
    run_dag, catalog, bucket, add_storage, annotate
):
    """The storage of the dogs stays alone when a cat is annotated."""
    with catalog.begin() as connection:
        dogs = projects.add(connection, "Dogs")
        storages.add(
            connection,
            dogs.id,
            "dogs",
            f"s3://{bucket.name}/dogs",
            Direction.EXPORT,
            conn_id="weed",
        )
    annotate(1)

    result = run_dag("export_on_change")

    assert task_states(result)["export"] == "skipped"


def test_a_change_makes_no_snapshot(run_dag, bucket, add_storage, annotate):
    add_storage("labels", "out", direction=Direction.EXPORT, export_format="jsonl")
    annotate(1)

    result = run_dag("export_on_change")

    assert task_states(result)["export"] == "skipped"
    assert bucket.get("out/") == {}
