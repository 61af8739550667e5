"""The sensors, looking for themselves and deferred to their triggers."""

import asyncio

import pytest

from catalogs import any_storage, import_tasks
from labelport.airflow.noticing import Look, new_objects
from labelport.airflow.sensors import NewAnnotationsSensor, NewObjectsSensor, StorageSensor
from labelport.airflow.triggers import NewAnnotationsTrigger, NewObjectsTrigger
from labelport.catalog import annotations, events
from labelport.connections import open_store
from labelport.errors import StoreUnavailable
from labelport.importing import import_storage
from labelport.model import AnnotationRow
from labelport.stores.memory import MemoryStore

SECONDS = 0.01


def fired(trigger):
    """The payload of a trigger's one event."""

    async def run():
        return [event.payload async for event in trigger.run()]

    (payload,) = asyncio.run(asyncio.wait_for(run(), 60))
    return payload


def test_annotations_beyond_the_watermark_are_noticed(catalog, labels, annotate):
    sensor = NewAnnotationsSensor(task_id="wait", storage="labels")
    before = sensor.poke({})
    annotate(2)
    after = sensor.poke({})
    with catalog.begin() as connection:
        events.move_watermark(connection, labels.id, 2)

    assert not before
    assert after
    assert after.xcom_value == {"first": 1, "last": 2, "created": 2, "updated": 0, "deleted": 0}
    assert not sensor.poke({})


def test_an_export_is_all_it_takes_to_wait_again(run_dag, bucket, labels, annotate):
    sensor = NewAnnotationsSensor(task_id="wait", storage="labels")
    annotate(1)

    run_dag("export_storage", storage="labels", shards=1)

    assert not sensor.poke({})


def test_an_unknown_storage_ends_the_wait(catalog):
    from airflow.sdk.exceptions import AirflowFailException

    with pytest.raises(AirflowFailException, match="nowhere"):
        NewAnnotationsSensor(task_id="wait", storage="nowhere").poke({})
    assert "nowhere" in fired(NewAnnotationsTrigger("nowhere"))["error"]


def test_unknown_objects_are_noticed_wherever_they_are(catalog, bucket, add_storage):
    storage = add_storage("media", "img", use_blob_urls=True)
    sensor = NewObjectsSensor(task_id="wait", storage="media")
    before = sensor.poke({})
    bucket.put({"img/b.jpg": b"x", "img/d.jpg": b"x", "img/folder/": b"", "elsewhere": b"x"})
    first = sensor.poke({})
    sync(catalog, storage)
    known = sensor.poke({})
    bucket.put({"img/c.jpg": b"x"})
    between = sensor.poke({})
    sync(catalog, storage)
    bucket.put({"img/e.jpg": b"x"})
    behind = sensor.poke({})

    assert [bool(found) for found in (before, first, known, between, behind)] == [
        *(False, True),
        *(False, True, True),
    ]
    assert (first.xcom_value, between.xcom_value, behind.xcom_value) == (
        {"new": 2},
        {"new": 1},
        {"new": 1},
    )


def sync(catalog, storage):
    import_storage(catalog, open_store, storage, job="test")


def test_looks_at_a_part_each_go_round_the_bucket(catalog):
    """By two objects a look, one that is new in the middle is met when its turn comes."""
    with catalog.begin() as connection:
        storage = any_storage(connection, location="memory://bucket/")
        import_tasks(connection, storage, [f"{n}.jpg" for n in range(0, 9, 2)])
    looks = asyncio.run(go_round(catalog, storage))

    assert [(look.new, look.position) for look in looks] == [
        *((0, "2.jpg"), (0, "6.jpg"), (0, "")),
        *((0, "2.jpg"), (1, "2.jpg")),
    ]


async def go_round(catalog, storage):
    store = SmallPages("bucket")
    for n in range(0, 9, 2):
        await store.put(f"{n}.jpg", b"x")
    looks = [Look(0, "")]
    for number in range(5):
        if number == 3:
            await store.put("5.jpg", b"x")
        position = looks[-1].position
        looks.append(await new_objects(catalog, store, storage, position=position, max_objects=2))
    return looks[1:]


class SmallPages(MemoryStore):
    """Two objects a page."""

    def pages(self, *arguments, **options):
        return super().pages(*arguments, **options | {"page_size": 2})


def test_the_triggers_find_what_the_sensors_would(bucket, labels, annotate):
    annotate(1)
    bucket.put({"a.jpg": b"x"})

    assert fired(NewAnnotationsTrigger("labels"))["created"] == 1
    assert fired(NewObjectsTrigger("photos")) == {"new": 1}


def test_a_trigger_waits_out_an_outage(labels, annotate, monkeypatch):
    annotate(1)
    trigger = NewAnnotationsTrigger("labels", poke_seconds=SECONDS)
    outages = [StoreUnavailable("away"), OSError("away")]
    look = trigger._look

    def looked():
        if outages:
            raise outages.pop()
        return look()

    monkeypatch.setattr(trigger, "_look", looked)

    assert fired(trigger)["created"] == 1
    assert not outages


@pytest.mark.parametrize("kind", [NewAnnotationsTrigger, NewObjectsTrigger])
def test_a_trigger_is_made_again_from_what_it_says_of_itself(home, kind):
    trigger = kind("photos", "somewhere", 7.0)
    path, arguments = trigger.serialize()

    assert path == f"labelport.airflow.triggers.{kind.__name__}"
    assert kind(**arguments).serialize() == (path, arguments)


def test_deferred_sensors_end_once_their_triggers_find_something(
    run_dag, catalog, bucket, add_storage, labels, monkeypatch
):
    """Both look for themselves, find nothing, and defer; while they are deferred it happens."""
    photos = add_storage(use_blob_urls=True)
    defer = StorageSensor.defer
    deferred = []

    def happen(sensor, **arguments):
        if sensor.task_id == "objects":
            bucket.put({"new.jpg": b"x"})
        else:
            with catalog.begin() as connection:
                (task_id,) = import_tasks(connection, photos, ["a.jpg"])
                annotations.create(connection, task_id, AnnotationRow("[]"))
        deferred.append(sensor.task_id)
        defer(sensor, **arguments)

    monkeypatch.setattr(StorageSensor, "defer", happen)

    result = run_dag("waiting")

    assert result.state == "success"
    assert sorted(deferred) == ["annotations", "objects"]
