"""Exports over buckets in memory: what is written, and a ledger that never lies. Both databases."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from catalogs import any_storage, import_tasks
from labelport import syncing
from labelport.catalog import Catalog, annotations, events, ledger, recording, storages
from labelport.errors import AccessDenied, ConfigurationError, StoreUnavailable
from labelport.exporting import (
    ExportOptions,
    Selection,
    delete_exported,
    export_annotations,
    export_shard,
    export_storage,
    plan_export,
)
from labelport.model import (
    AnnotationRow,
    Direction,
    ExportFormat,
    ExportLink,
    Status,
    Storage,
    SyncState,
)
from labelport.putting import PutLimits
from labelport.stores import Store
from labelport.stores.memory import MemoryStore
from memory_buckets import Bucket

RESULT = '[{"type": "choices", "value": {"choices": ["cat"]}}]'


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


def annotated(catalog: Catalog, count: int, *, each: int = 1) -> list[int]:
    """*count* tasks with *each* annotations; the annotations' ids in order."""
    with catalog.begin() as connection:
        source = any_storage(connection, "source", location="memory://source/")
        task_ids = import_tasks(connection, source, [f"img/{n:04}.jpg" for n in range(count)])
        return [
            annotations.create(
                connection, task_id, AnnotationRow(RESULT, completed_by=f"ann{n}@example.org")
            ).id
            for task_id in task_ids
            for n in range(each)
        ]


def target(catalog: Catalog, bucket: Bucket, **settings: Any) -> Storage:
    with catalog.begin() as connection:
        return any_storage(
            connection,
            "target",
            location=bucket.location("out"),
            direction=Direction.EXPORT,
            **settings,
        )


def export(
    catalog: Catalog,
    storage: Storage,
    store: Store | None = None,
    *,
    shards: int = 1,
    **options: Any,
) -> SyncState:
    limits = options.pop("limits", PutLimits(put_seconds=5))
    return export_storage(
        catalog,
        lambda storage: store or MemoryStore(storage.bucket),
        storage,
        job="test",
        shards=shards,
        options=ExportOptions(limits=limits, **options),
    )


def rows(catalog: Catalog, storage: Storage) -> list[ExportLink]:
    with catalog.read() as connection:
        return list(ledger.page(connection, storage.id, limit=10_000))


def objects(bucket: Bucket) -> dict[str, Any]:
    async def read() -> dict[str, Any]:
        store = MemoryStore(bucket.name)
        metas = [meta async for page in store.pages() for meta in page.objects]
        return {m.key: json.loads((await store.read(m.key, max_bytes=10**7))[0]) for m in metas}

    return asyncio.run(read())


class Faulty(MemoryStore):
    """A memory store whose *n*-th put goes as *fault* says; it counts puts and deletions."""

    def __init__(self, bucket: str, fault: Callable[[Faulty, str, int], None] | None = None):
        super().__init__(bucket)
        self._fault = fault
        self.puts: list[str] = []
        self.deleted: list[str] = []

    async def put(self, key: str, body: bytes, **options: Any) -> str:
        self.puts.append(key)
        if self._fault is not None:
            self._fault(self, key, len(self.puts))
        return await super().put(key, body, **options)

    async def delete(self, key: str) -> None:
        self.deleted.append(key)
        await super().delete(key)


def test_each_annotation_becomes_an_object_with_its_task_inside(
    catalog: Catalog, bucket: Bucket
) -> None:
    ids = annotated(catalog, 3)
    storage = target(catalog, bucket)

    state = export(catalog, storage)

    found = objects(bucket)
    assert (state.status, state.last_sync_count) == (Status.COMPLETED, 3)
    assert set(found) == {f"out/{number}" for number in ids}
    body = found[f"out/{ids[0]}"]
    assert body["id"] == ids[0]
    assert body["result"] == json.loads(RESULT)
    assert body["task"]["data"] == {"image": "memory://source/img/0000.jpg"}
    assert [
        (row.annotation_id, row.object_exists, row.attempts) for row in rows(catalog, storage)
    ] == [(number, True, 1) for number in ids]


def test_a_task_becomes_one_object_with_all_its_annotations(
    catalog: Catalog, bucket: Bucket
) -> None:
    ids = annotated(catalog, 2, each=3)
    storage = target(catalog, bucket, export_format=ExportFormat.TASK)

    state = export(catalog, storage)

    found = objects(bucket)
    assert state.counters.created == 2
    assert [key.endswith(".json") for key in found] == [True, True]
    assert sorted(a["id"] for body in found.values() for a in body["annotations"]) == ids
    assert len(rows(catalog, storage)) == 6


def test_an_unchanged_rerun_puts_nothing(catalog: Catalog, bucket: Bucket) -> None:
    annotated(catalog, 5)
    storage = target(catalog, bucket)
    export(catalog, storage)
    store = Faulty(bucket.name)

    state = export(catalog, storage, store)

    assert (state.counters.existed, state.counters.created, store.puts) == (5, 0, [])


def test_a_changed_annotation_is_written_again_and_only_that(
    catalog: Catalog, bucket: Bucket
) -> None:
    ids = annotated(catalog, 4)
    storage = target(catalog, bucket)
    export(catalog, storage)
    with catalog.begin() as connection:
        annotations.update(connection, ids[2], result="[]")
    store = Faulty(bucket.name)

    state = export(catalog, storage, store)

    assert store.puts == [f"out/{ids[2]}"]
    assert (state.counters.updated, state.counters.existed) == (1, 3)
    assert state.last_sync_count == 1
    assert objects(bucket)[f"out/{ids[2]}"]["result"] == []


def test_a_whole_export_has_done_with_the_events_before_it(
    catalog: Catalog, bucket: Bucket
) -> None:
    annotated(catalog, 2)
    storage = target(catalog, bucket)
    with catalog.read() as connection:
        newest = events.newest(connection, storage.project_id)

    export(catalog, storage, select=Selection.NEW)
    with catalog.read() as connection:
        after_new = events.watermark(connection, storage.id)
    export(catalog, storage)

    with catalog.read() as connection:
        assert (after_new, events.watermark(connection, storage.id)) == (0, newest)


def test_selections(catalog: Catalog, bucket: Bucket) -> None:
    """All writes everything, new only what never was, changed what differs."""
    ids = annotated(catalog, 2)
    storage = target(catalog, bucket)
    export(catalog, storage)
    with catalog.begin() as connection:
        annotations.update(connection, ids[0], result="[]")
        task_id = annotations.get(connection, ids[0]).task_id
        fresh = annotations.create(connection, task_id, AnnotationRow("[]")).id
    new, everything = Faulty(bucket.name), Faulty(bucket.name)

    export(catalog, storage, new, select=Selection.NEW)
    export(catalog, storage, everything, select=Selection.ALL)

    assert new.puts == [f"out/{fresh}"]
    assert len(everything.puts) == 3


@pytest.mark.parametrize("shards", [2, 5])
def test_shards_divide_the_annotations(catalog: Catalog, bucket: Bucket, shards: int) -> None:
    ids = annotated(catalog, 40)
    storage = target(catalog, bucket)
    store = Faulty(bucket.name)

    state = export(catalog, storage, store, shards=shards)

    assert (state.status, state.counters.created) == (Status.COMPLETED, 40)
    assert sorted(store.puts) == sorted(f"out/{number}" for number in ids)


def test_a_failed_put_is_a_failed_row_and_the_next_run_does_exactly_those(
    catalog: Catalog, bucket: Bucket
) -> None:
    ids = annotated(catalog, 21)
    storage = target(catalog, bucket)

    def every_seventh(store: Faulty, key: str, number: int) -> None:
        if number % 7 == 0:
            raise StoreUnavailable("503 SlowDown", uri=f"memory://x/{key}")

    failing = Faulty(bucket.name, every_seventh)
    state = export(catalog, storage, failing)

    failed = {int(key.removeprefix("out/")) for key in failing.puts[6::7]}
    assert (state.status, state.counters.errors) == (Status.COMPLETED_WITH_ERRORS, 3)
    assert state.counters.created == 18
    for row in rows(catalog, storage):
        exported = row.annotation_id not in failed
        assert (row.object_exists, row.error is None, row.digest is not None) == (exported,) * 3
        assert row.attempts == 1
    assert set(objects(bucket)) == {f"out/{number}" for number in set(ids) - failed}

    again = Faulty(bucket.name)
    state = export(catalog, storage, again)

    assert sorted(again.puts) == sorted(f"out/{number}" for number in failed)
    assert state.status is Status.COMPLETED
    assert {row.attempts for row in rows(catalog, storage) if row.annotation_id in failed} == {2}
    assert all(row.object_exists and row.error is None for row in rows(catalog, storage))


def test_a_failed_rewrite_keeps_what_was_exported_before(catalog: Catalog, bucket: Bucket) -> None:
    ids = annotated(catalog, 1)
    storage = target(catalog, bucket)
    export(catalog, storage)
    before = rows(catalog, storage)[0]
    with catalog.begin() as connection:
        annotations.update(connection, ids[0], result="[]")

    def refuse(store: Faulty, key: str, number: int) -> None:
        raise AccessDenied("no right to write", uri=key)

    export(catalog, storage, Faulty(bucket.name, refuse))

    after = rows(catalog, storage)[0]
    assert (after.object_exists, after.digest, after.etag) == (True, before.digest, before.etag)
    assert after.error is not None and "AccessDenied" in after.error


def test_a_store_that_dies_midway_fails_the_run_and_the_ledger_holds_what_was_tried(
    catalog: Catalog, bucket: Bucket
) -> None:
    annotated(catalog, 60)
    storage = target(catalog, bucket)

    def dead(store: Faulty, key: str, number: int) -> None:
        if number > 25:
            raise StoreUnavailable("connection refused", uri=key)

    store = Faulty(bucket.name, dead)
    limits = PutLimits(max_workers=4, outage_after=5)
    state = export(catalog, storage, store, limits=limits)

    written = {int(key.removeprefix("out/")) for key in store.puts[:25]}
    tried = {int(key.removeprefix("out/")) for key in store.puts}
    found = rows(catalog, storage)
    assert state.status is Status.FAILED
    assert state.traceback is not None and "connection refused" in state.traceback
    assert {row.annotation_id for row in found if row.object_exists} == written
    assert {row.annotation_id for row in found} == tried
    assert len(tried) < 60
    assert export(catalog, storage).counters.created == 35


def test_a_write_that_is_acknowledged_and_lost_is_a_failure(
    catalog: Catalog, bucket: Bucket
) -> None:
    ids = annotated(catalog, 3)
    storage = target(catalog, bucket)

    class Losing(MemoryStore):
        async def put(self, key: str, body: bytes, **options: Any) -> str:
            if key == f"out/{ids[0]}":
                return "0123456789abcdef"  # and nothing is there
            if key == f"out/{ids[1]}":
                return await super().put(key, body[:-1], **options)  # cut short
            return await super().put(key, body, **options)

    state = export(catalog, storage, Losing(bucket.name))

    found = {row.annotation_id: row for row in rows(catalog, storage)}
    assert state.counters.errors == 2
    assert [found[number].object_exists for number in ids] == [False, False, True]
    assert "lost" in str(found[ids[0]].error)
    assert "acknowledged, but the store has" in str(found[ids[1]].error)


def test_a_store_that_hangs_is_given_up_on(catalog: Catalog, bucket: Bucket) -> None:
    ids = annotated(catalog, 3)
    storage = target(catalog, bucket)

    class Hanging(MemoryStore):
        async def put(self, key: str, body: bytes, **options: Any) -> str:
            if key == f"out/{ids[1]}":
                await asyncio.Event().wait()
            return await super().put(key, body, **options)

    state = export(catalog, storage, Hanging(bucket.name), limits=PutLimits(put_seconds=0.2))

    assert state.status is Status.COMPLETED_WITH_ERRORS
    errors = {row.annotation_id: row.error for row in rows(catalog, storage) if row.error}
    assert list(errors) == [ids[1]]
    assert "no answer within 0.2 s" in str(errors[ids[1]])


def test_too_many_failures_end_the_run_as_failed(catalog: Catalog, bucket: Bucket) -> None:
    annotated(catalog, 10)
    storage = target(catalog, bucket)

    def refuse_some(store: Faulty, key: str, number: int) -> None:
        if number % 2:
            raise AccessDenied("no", uri=key)

    state = export(catalog, storage, Faulty(bucket.name, refuse_some), max_errors=2)

    assert state.status is Status.FAILED
    assert "max_errors=2" in str(state.traceback)


def test_a_crash_after_the_puts_repeats_them_and_the_ledger_is_whole(
    catalog: Catalog, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    annotated(catalog, 6)
    storage = target(catalog, bucket)

    def crash(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(recording, "record", crash)
        export(catalog, storage)
    unsaid = rows(catalog, storage)
    state = export(catalog, storage)

    assert unsaid == []
    assert state.counters.created == 6
    assert len(objects(bucket)) == 6


def test_a_template_names_the_objects(catalog: Catalog, bucket: Bucket) -> None:
    annotated(catalog, 1)
    storage = target(catalog, bucket, key_template="{source_stem}.{annotator}.json")

    export(catalog, storage)

    assert list(objects(bucket)) == ["out/0000.ann0@example.org.json"]


def test_a_template_that_gives_a_key_twice_is_refused_before_the_first_write(
    catalog: Catalog, bucket: Bucket
) -> None:
    annotated(catalog, 2, each=2)
    storage = target(catalog, bucket, key_template="{source_stem}.json")
    store = Faulty(bucket.name)

    with pytest.raises(ConfigurationError, match="would both be written to"):
        export(catalog, storage, store)

    assert (store.puts, rows(catalog, storage)) == ([], [])


def test_an_annotation_keeps_its_key_when_its_annotator_changes(
    catalog: Catalog, bucket: Bucket
) -> None:
    ids = annotated(catalog, 1)
    storage = target(catalog, bucket, key_template="{source_stem}.{annotator}.json")
    export(catalog, storage)
    with catalog.begin() as connection:
        annotations.update(connection, ids[0], completed_by="bob@example.org")

    export(catalog, storage)

    assert list(objects(bucket)) == ["out/0000.ann0@example.org.json"]


@pytest.mark.parametrize("may_delete", [True, False])
def test_a_deleted_annotation_takes_its_object_with_it_if_it_may(
    catalog: Catalog, bucket: Bucket, may_delete: bool
) -> None:
    ids = annotated(catalog, 2)
    storage = target(catalog, bucket, can_delete_objects=may_delete)
    export(catalog, storage)
    with catalog.begin() as connection:
        annotations.delete(connection, ids[0])
    store = Faulty(bucket.name)

    state = export(catalog, storage, store)

    left = {row.annotation_id: row.deleted_at is not None for row in rows(catalog, storage)}
    if may_delete:
        assert (store.deleted, state.counters.missing) == ([f"out/{ids[0]}"], 1)
        assert left == {ids[1]: False}
        assert set(objects(bucket)) == {f"out/{ids[1]}"}
    else:
        assert store.deleted == []
        assert left == {ids[0]: True, ids[1]: False}


def test_a_task_object_loses_the_annotation_that_was_deleted(
    catalog: Catalog, bucket: Bucket
) -> None:
    ids = annotated(catalog, 1, each=2)
    storage = target(catalog, bucket, export_format=ExportFormat.TASK, can_delete_objects=True)
    export(catalog, storage)
    with catalog.begin() as connection:
        annotations.delete(connection, ids[0])

    export(catalog, storage)
    (body,) = objects(bucket).values()
    with catalog.begin() as connection:
        annotations.delete(connection, ids[1])
    export(catalog, storage)

    assert [annotation["id"] for annotation in body["annotations"]] == [ids[1]]
    assert objects(bucket) == {}
    assert rows(catalog, storage) == []


def test_an_annotation_deleted_while_it_is_written_ends_deleted(
    catalog: Catalog, bucket: Bucket
) -> None:
    """The deletion comes between the read and the put: the later truth wins."""
    ids = annotated(catalog, 3)
    storage = target(catalog, bucket, can_delete_objects=True)

    def delete_meanwhile(store: Faulty, key: str, number: int) -> None:
        if key == f"out/{ids[1]}" and number <= 3:
            with catalog.begin() as connection:
                annotations.delete(connection, ids[1])

    state = export(catalog, storage, Faulty(bucket.name, delete_meanwhile))

    assert state.status is Status.COMPLETED
    assert set(objects(bucket)) == {f"out/{ids[0]}", f"out/{ids[2]}"}
    assert [row.annotation_id for row in rows(catalog, storage)] == [ids[0], ids[2]]


def test_deletions_all_the_while_end_with_what_is_left(catalog: Catalog, bucket: Bucket) -> None:
    """Another thread deletes while pages are read, written and recorded; nothing deadlocks."""
    ids = annotated(catalog, 600)
    storage = target(catalog, bucket, can_delete_objects=True)
    doomed = random.sample(ids, 200)

    def delete_some() -> None:
        for number in doomed:
            with catalog.begin() as connection:
                annotations.delete(connection, number)

    with ThreadPoolExecutor(1) as pool:
        deleting = pool.submit(delete_some)
        while not deleting.done():
            assert export(catalog, storage, shards=3, select=Selection.ALL).status == "completed"
        deleting.result()
    export(catalog, storage)

    left = set(ids) - set(doomed)
    assert set(objects(bucket)) == {f"out/{number}" for number in left}
    assert {row.annotation_id for row in rows(catalog, storage)} == left


def test_a_deletion_that_the_store_refuses_is_tried_again(catalog: Catalog, bucket: Bucket) -> None:
    ids = annotated(catalog, 1)
    storage = target(catalog, bucket, can_delete_objects=True)
    export(catalog, storage)
    with catalog.begin() as connection:
        annotations.delete(connection, ids[0])

    class Kept(MemoryStore):
        async def delete(self, key: str) -> None:
            raise AccessDenied("no right to delete", uri=key)

    failed = export(catalog, storage, Kept(bucket.name))
    kept = rows(catalog, storage)
    done = export(catalog, storage)

    assert failed.status is Status.FAILED
    assert len(kept) == 1 and kept[0].deleted_at is not None
    assert (done.status, rows(catalog, storage), objects(bucket)) == (Status.COMPLETED, [], {})


def test_the_deletions_alone(catalog: Catalog, bucket: Bucket) -> None:
    ids = annotated(catalog, 2)
    storage = target(catalog, bucket, can_delete_objects=True)
    export(catalog, storage)
    with catalog.begin() as connection:
        annotations.delete(connection, ids[0])
        annotations.update(connection, ids[1], result="[]")
    store = Faulty(bucket.name)

    export(catalog, storage, store, select=Selection.DELETED)

    assert (store.deleted, store.puts) == ([f"out/{ids[0]}"], [])


def test_some_annotations_can_be_exported_and_deleted_by_hand(
    catalog: Catalog, bucket: Bucket
) -> None:
    ids = annotated(catalog, 3)
    storage = target(catalog, bucket, can_delete_objects=True)
    store = MemoryStore(bucket.name)

    outcomes = asyncio.run(export_annotations(catalog, store, storage, ids[:2]))
    with catalog.begin() as connection:
        annotations.delete(connection, ids[0])
    deleted = asyncio.run(delete_exported(catalog, store, storage, ids))

    assert [outcome.error for outcome in outcomes] == [None, None]
    assert deleted == 1
    assert set(objects(bucket)) == {f"out/{ids[1]}"}


def test_an_owner_that_lost_its_shard_writes_no_ledger(catalog: Catalog, bucket: Bucket) -> None:
    annotated(catalog, 2)
    storage = target(catalog, bucket)
    syncing.queue(catalog, storage, run_id="one", job="one")
    asyncio.run(plan_export(catalog, storage, run_id="one"))

    def robbed(store: Faulty, key: str, number: int) -> None:
        with catalog.begin() as connection:
            syncing.shards.take(connection, storage.id, "one", 0, owner="thief", worker="x:1")

    with pytest.raises(syncing.SyncLost):
        asyncio.run(
            export_shard(catalog, Faulty(bucket.name, robbed), storage, run_id="one", index=0)
        )

    assert rows(catalog, storage) == []


@pytest.mark.parametrize(
    "change", [{"location": "memory://elsewhere/"}, {"export_format": ExportFormat.TASK}]
)
def test_where_and_how_is_settled_once_something_was_exported(
    catalog: Catalog, bucket: Bucket, change: dict[str, Any]
) -> None:
    """The ledger's keys would mean something else."""
    annotated(catalog, 1)
    storage = target(catalog, bucket)
    export(catalog, storage)

    with pytest.raises(ConfigurationError, match="another storage"), catalog.begin() as connection:
        storages.update(connection, storage.id, **change)


def test_an_import_storage_cannot_be_exported_to(catalog: Catalog, bucket: Bucket) -> None:
    with catalog.begin() as connection:
        storage = any_storage(connection, "source", location=bucket.location())

    with pytest.raises(ConfigurationError, match="import storage"):
        export(catalog, storage)
