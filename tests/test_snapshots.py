"""Snapshots over buckets in memory: whole files, the mark that comes last. Both databases."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import tracemalloc
from collections.abc import Callable
from io import BytesIO
from typing import Any

import pyarrow.parquet
import pytest

from catalogs import any_storage, import_tasks
from labelport import snapshots, syncing
from labelport.catalog import Catalog, annotations, ledger, projects, recording, storages, tasks
from labelport.errors import (
    AccessDenied,
    ConfigurationError,
    ObjectChanged,
    ObjectNotFound,
    StoreUnavailable,
    SyncLost,
)
from labelport.exporting import (
    ExportOptions,
    Selection,
    delete_exported,
    export_annotations,
    export_shard,
    export_storage,
    plan_export,
)
from labelport.formats.exported import annotation_body, digest
from labelport.formats.parts import new_part
from labelport.importing import import_storage
from labelport.model import (
    AnnotationRow,
    Direction,
    ExportFormat,
    ExportLink,
    ObjectMeta,
    Status,
    Storage,
    SyncState,
)
from labelport.publishing import publish
from labelport.putting import PutLimits
from labelport.stores.memory import MemoryStore
from memory_buckets import Bucket

RESULT = '[{"type": "choices", "value": {"choices": ["cat"]}}]'


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


def annotated(catalog: Catalog, count: int) -> list[int]:
    """*count* tasks with an annotation each; the annotations' ids in order."""
    with catalog.begin() as connection:
        source = any_storage(connection, "source", location="memory://source/")
        task_ids = import_tasks(connection, source, [f"img/{n:05}.jpg" for n in range(count)])
        row = AnnotationRow(RESULT, completed_by="ann@example.org", lead_time=1.5)
        return [annotations.create(connection, task_id, row).id for task_id in task_ids]


def target(catalog: Catalog, bucket: Bucket, **settings: Any) -> Storage:
    with catalog.begin() as connection:
        return any_storage(
            connection,
            "target",
            location=bucket.location("out"),
            direction=Direction.EXPORT,
            **{"export_format": ExportFormat.JSONL, "rows_per_file": 10} | settings,
        )


def export(
    catalog: Catalog,
    storage: Storage,
    store: MemoryStore | None = None,
    *,
    shards: int = 1,
    **options: Any,
) -> SyncState:
    return export_storage(
        catalog,
        lambda storage: store or MemoryStore(storage.bucket),
        storage,
        job="test",
        shards=shards,
        options=ExportOptions(**{"limits": PutLimits(put_seconds=5)} | options),
    )


def rows(catalog: Catalog, storage: Storage) -> list[ExportLink]:
    with catalog.read() as connection:
        return list(ledger.page(connection, storage.id, limit=10_000))


def objects(bucket: Bucket) -> dict[str, bytes]:
    """The bodies by name, with the run's folder left out; there is one such folder at most."""

    async def read() -> dict[str, bytes]:
        store = MemoryStore(bucket.name)
        metas = [meta async for page in store.pages() for meta in page.objects]
        return {meta.key: (await store.read(meta.key, max_bytes=10**8))[0] for meta in metas}

    found = asyncio.run(read())
    assert len({key.rpartition("/")[0] for key in found}) <= 1
    return {key.rpartition("/")[2]: body for key, body in found.items()}


def empty(bucket: Bucket) -> None:
    async def delete() -> None:
        store = MemoryStore(bucket.name)
        for key in [meta.key async for page in store.pages() for meta in page.objects]:
            await store.delete(key)

    asyncio.run(delete())


def ids_in(found: dict[str, bytes]) -> list[int]:
    """The annotations in all the files, one by one as they are there."""
    lines = [
        line
        for name, body in sorted(found.items())
        if name.endswith(".jsonl")
        for line in body.splitlines()
    ]
    return [json.loads(line)["id"] for line in lines]


class Faulty(MemoryStore):
    """A memory store whose *n*-th put goes as *fault* says; it remembers the puts."""

    def __init__(self, bucket: str, fault: Callable[[str, int], None] | None = None):
        super().__init__(bucket)
        self._fault = fault
        self.puts: list[str] = []

    async def put(self, key: str, body: bytes, **options: Any) -> str:
        self.puts.append(key.rpartition("/")[2])
        if self._fault is not None:
            self._fault(key, len(self.puts))
        return await super().put(key, body, **options)


def test_all_annotations_are_in_files_and_the_mark_is_written_last(
    catalog: Catalog, bucket: Bucket
) -> None:
    ids = annotated(catalog, 25)
    storage = target(catalog, bucket)
    store = Faulty(bucket.name)

    state = export(catalog, storage, store)

    found = objects(bucket)
    parts = [f"part-00000-{after:010}.jsonl" for after in (0, ids[9], ids[19])]
    assert (state.status, state.counters.scanned, state.counters.created) == (
        Status.COMPLETED,
        25,
        3,
    )
    assert store.puts == [*parts, "_MANIFEST.json", "_SUCCESS"]
    assert [len(found[name].splitlines()) for name in parts] == [10, 10, 5]
    assert ids_in(found) == ids
    assert found["_SUCCESS"] == b""


def test_each_line_has_its_task_source_and_digest(catalog: Catalog, bucket: Bucket) -> None:
    (number,) = annotated(catalog, 1)
    storage = target(catalog, bucket)

    export(catalog, storage)

    line = json.loads(objects(bucket)["part-00000-0000000000.jsonl"])
    assert line["id"] == number
    assert line["result"] == json.loads(RESULT)
    assert line["task"]["data"] == {"image": "memory://source/img/00000.jpg"}
    assert line["source"]["uri"] == "memory://source/img/00000.jpg"
    assert line["source"]["etag"] == "e1"
    assert line["digest"] == rows(catalog, storage)[0].digest


def test_the_manifest_agrees_with_the_files_and_the_ledger(
    catalog: Catalog, bucket: Bucket
) -> None:
    ids = annotated(catalog, 15)
    storage = target(catalog, bucket)

    state = export(catalog, storage)

    found = objects(bucket)
    manifest = json.loads(found["_MANIFEST.json"])
    assert (manifest["version"], manifest["storage"], manifest["format"]) == (1, "target", "jsonl")
    assert manifest["run"] == state.run_id
    assert (manifest["rows"], manifest["bytes"]) == (
        15,
        sum(len(body) for name, body in found.items() if name.startswith("part-")),
    )
    links = {row.annotation_id: row for row in rows(catalog, storage)}
    assert [(file["rows"], file["first_annotation_id"]) for file in manifest["files"]] == [
        (10, ids[0]),
        (5, ids[10]),
    ]
    for file in manifest["files"]:
        body = found[file["key"].rpartition("/")[2]]
        first, last = (links[file[f"{end}_annotation_id"]] for end in ("first", "last"))
        assert file["bytes"] == len(body)
        assert {first.key, last.key} == {file["key"]}
        assert {first.etag, last.etag} == {file["etag"]}


def test_shards_write_files_of_their_own(catalog: Catalog, bucket: Bucket) -> None:
    ids = annotated(catalog, 40)
    storage = target(catalog, bucket, rows_per_file=7)

    state = export(catalog, storage, shards=3)

    found = objects(bucket)
    parts = [name for name in found if name.startswith("part-")]
    assert state.status is Status.COMPLETED
    assert {name[:10] for name in parts} == {"part-00000", "part-00001", "part-00002"}
    assert ids_in(found) == ids
    listed = json.loads(found["_MANIFEST.json"])["files"]
    assert [file["key"].rpartition("/")[2] for file in listed] == sorted(parts)


def test_parquet_has_a_row_for_each(catalog: Catalog, bucket: Bucket) -> None:
    ids = annotated(catalog, 12)
    storage = target(catalog, bucket, export_format=ExportFormat.PARQUET)

    export(catalog, storage)

    found = {name: body for name, body in objects(bucket).items() if name.endswith(".parquet")}
    tables = [pyarrow.parquet.read_table(BytesIO(body)) for _, body in sorted(found.items())]
    with catalog.read() as connection:
        annotation = annotations.get(connection, ids[0])
        task = tasks.get(connection, annotation.task_id).task
    assert [table.num_rows for table in tables] == [10, 2]
    assert [number for table in tables for number in table["annotation_id"].to_pylist()] == ids
    assert tables[0].slice(0, 1).to_pylist() == [
        {
            "annotation_id": annotation.id,
            "task_id": annotation.task_id,
            "result": annotation.result,
            "completed_by": "ann@example.org",
            "was_cancelled": False,
            "ground_truth": False,
            "lead_time": 1.5,
            "created_at": annotation.created_at,
            "updated_at": annotation.updated_at,
            "task_data": task.data,
            "source_uri": "memory://source/img/00000.jpg",
            "source_etag": "e1",
            "digest": digest(annotation_body(task, annotation)),
        }
    ]


def test_parquet_without_pyarrow_names_what_to_install(
    catalog: Catalog, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    annotated(catalog, 1)
    storage = target(catalog, bucket, export_format=ExportFormat.PARQUET)
    monkeypatch.setitem(sys.modules, "pyarrow", None)

    with pytest.raises(ConfigurationError, match=r"labelport\[parquet\]"):
        export(catalog, storage)

    assert objects(bucket) == {}


def test_a_file_that_fails_leaves_no_mark_and_the_next_run_is_whole(
    catalog: Catalog, bucket: Bucket
) -> None:
    ids = annotated(catalog, 25)
    storage = target(catalog, bucket)

    def second(key: str, number: int) -> None:
        if number == 2:
            raise StoreUnavailable("503 SlowDown", uri=key)

    state = export(catalog, storage, Faulty(bucket.name, second))

    found, links = objects(bucket), rows(catalog, storage)
    assert (state.status, state.counters.errors) == (Status.COMPLETED_WITH_ERRORS, 10)
    assert sorted(name[:4] for name in found) == ["part", "part"]
    assert [row.annotation_id for row in links if row.error] == ids[10:20]
    assert [row.object_exists for row in links] == [row.error is None for row in links]

    empty(bucket)
    state = export(catalog, storage)

    assert (state.status, state.counters.created) == (Status.COMPLETED, 3)
    assert ids_in(objects(bucket)) == ids
    assert "_SUCCESS" in objects(bucket)
    assert not any(row.error for row in rows(catalog, storage))


@pytest.mark.parametrize("name", ["_MANIFEST.json", "_SUCCESS"])
def test_a_manifest_that_cannot_be_written_fails_the_run(
    catalog: Catalog, bucket: Bucket, name: str
) -> None:
    annotated(catalog, 3)
    storage = target(catalog, bucket)

    def refuse(key: str, number: int) -> None:
        if key.endswith(name):
            raise AccessDenied("no right to write", uri=key)

    state = export(catalog, storage, Faulty(bucket.name, refuse))

    assert state.status is Status.FAILED
    assert "no right to write" in str(state.traceback)
    assert "_SUCCESS" not in objects(bucket)


def test_a_file_that_is_lost_after_its_write_is_seen_before_the_mark(
    catalog: Catalog, bucket: Bucket
) -> None:
    """Files are looked at once more: somebody may have deleted or replaced one meanwhile."""
    annotated(catalog, 12)
    storage = target(catalog, bucket)
    run_id = planned(catalog, storage)
    asyncio.run(export_shard(catalog, MemoryStore(bucket.name), storage, run_id=run_id, index=0))
    key = rows(catalog, storage)[0].key

    bucket.put({key: "something else"})
    with pytest.raises(ObjectChanged):
        asyncio.run(publish(catalog, MemoryStore(bucket.name), storage, run_id))
    bucket.delete(key)
    with pytest.raises(ObjectNotFound):
        asyncio.run(publish(catalog, MemoryStore(bucket.name), storage, run_id))

    assert "_SUCCESS" not in objects(bucket)


def planned(catalog: Catalog, storage: Storage, *, shards: int = 1) -> str:
    syncing.queue(catalog, storage, run_id="one", job="one")
    asyncio.run(plan_export(catalog, storage, run_id="one", shards=shards))
    return "one"


@pytest.mark.parametrize("crash_at", ["put", "ledger"])
def test_a_shard_that_is_tried_again_writes_nothing_twice(
    catalog: Catalog, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, crash_at: str
) -> None:
    """It crashes at its second file; annotations come and go before it is tried again."""
    ids = annotated(catalog, 25)
    storage = target(catalog, bucket)
    run_id = planned(catalog, storage)
    record = recording.record

    def crash(connection: Any, storage_id: int, outcomes: Any) -> None:
        if outcomes[0].annotation_id > ids[0]:
            raise RuntimeError("killed")
        record(connection, storage_id, outcomes)

    def crash_put(key: str, number: int) -> None:
        if number == 2:
            raise RuntimeError("killed")

    store = Faulty(bucket.name, crash_put if crash_at == "put" else None)
    with monkeypatch.context() as patched, pytest.raises(RuntimeError):
        if crash_at == "ledger":
            patched.setattr(recording, "record", crash)
        asyncio.run(export_shard(catalog, store, storage, run_id=run_id, index=0))
    said = [row.annotation_id for row in rows(catalog, storage)]
    with catalog.begin() as connection:
        task_id = annotations.get(connection, ids[0]).task_id
        fresh = annotations.create(connection, task_id, AnnotationRow("[]")).id
        annotations.delete(connection, ids[10])
    again = Faulty(bucket.name)
    counters = asyncio.run(export_shard(catalog, again, storage, run_id=run_id, index=0))
    published = asyncio.run(publish(catalog, again, storage, run_id))

    found = objects(bucket)
    assert said == ids[:10]
    assert (again.puts[0], counters.created) == (f"part-00000-{ids[9]:010}.jsonl", 3)
    assert published
    assert ids_in(found) == [*ids[:10], *ids[11:], fresh]
    assert json.loads(found["_MANIFEST.json"])["rows"] == 25


def test_an_outage_fails_the_shard_and_a_retry_makes_the_snapshot_whole(
    catalog: Catalog, bucket: Bucket
) -> None:
    ids = annotated(catalog, 25)
    storage = target(catalog, bucket)
    run_id = planned(catalog, storage)

    def dead(key: str, number: int) -> None:
        if number > 1:
            raise StoreUnavailable("connection refused", uri=key)

    options = ExportOptions(limits=PutLimits(outage_after=1))
    with pytest.raises(StoreUnavailable):
        asyncio.run(
            export_shard(
                catalog,
                Faulty(bucket.name, dead),
                storage,
                run_id=run_id,
                index=0,
                options=options,
            )
        )
    failed = [row.annotation_id for row in rows(catalog, storage) if row.error]
    store = MemoryStore(bucket.name)
    asyncio.run(export_shard(catalog, store, storage, run_id=run_id, index=0, options=options))
    published = asyncio.run(publish(catalog, store, storage, run_id))

    assert failed == ids[10:20]
    assert published
    assert syncing.finish(catalog, storage, run_id=run_id).status is Status.COMPLETED
    assert ids_in(objects(bucket)) == ids


def test_nothing_is_published_before_all_shards_are_done(catalog: Catalog, bucket: Bucket) -> None:
    annotated(catalog, 10)
    storage = target(catalog, bucket)
    run_id = planned(catalog, storage, shards=2)
    store = Faulty(bucket.name)

    asyncio.run(export_shard(catalog, store, storage, run_id=run_id, index=1))
    half = asyncio.run(publish(catalog, store, storage, run_id))
    asyncio.run(export_shard(catalog, store, storage, run_id=run_id, index=0))
    before = objects(bucket)
    whole = [asyncio.run(publish(catalog, store, storage, run_id)) for _ in range(2)]

    assert (half, whole) == (False, [True, True])
    assert not {"_SUCCESS", "_MANIFEST.json"} & set(before)
    assert len(objects(bucket)) == 4


def test_a_run_that_lost_its_storage_cannot_publish(catalog: Catalog, bucket: Bucket) -> None:
    annotated(catalog, 3)
    storage = target(catalog, bucket)
    state = export(catalog, storage)
    empty(bucket)
    export(catalog, storage)
    assert state.run_id is not None

    with pytest.raises(SyncLost):
        asyncio.run(publish(catalog, MemoryStore(bucket.name), storage, state.run_id))


def test_a_storage_of_single_objects_has_nothing_to_publish(
    catalog: Catalog, bucket: Bucket
) -> None:
    annotated(catalog, 1)
    storage = target(catalog, bucket, export_format=ExportFormat.ANNOTATION)
    state = export(catalog, storage)
    assert state.run_id is not None

    assert not asyncio.run(publish(catalog, MemoryStore(bucket.name), storage, state.run_id))
    assert len(objects(bucket)) == 1


@pytest.mark.parametrize("select", [Selection.NEW, Selection.CHANGED, Selection.ALL])
def test_every_snapshot_is_whole_whatever_is_selected(
    catalog: Catalog, bucket: Bucket, select: Selection
) -> None:
    ids = annotated(catalog, 12)
    storage = target(catalog, bucket)
    export(catalog, storage)
    empty(bucket)

    export(catalog, storage, select=select)

    assert ids_in(objects(bucket)) == ids


def test_a_deleted_annotation_is_absent_and_its_tombstone_goes(
    catalog: Catalog, bucket: Bucket
) -> None:
    ids = annotated(catalog, 12)
    storage = target(catalog, bucket, can_delete_objects=True)
    export(catalog, storage)
    with catalog.begin() as connection:
        annotations.delete(connection, ids[3])
    empty(bucket)

    state = export(catalog, storage)

    assert state.status is Status.COMPLETED
    assert ids_in(objects(bucket)) == [*ids[:3], *ids[4:]]
    assert [row.annotation_id for row in rows(catalog, storage)] == [*ids[:3], *ids[4:]]


def test_an_annotation_deleted_while_its_file_is_written_is_in_this_snapshot_only(
    catalog: Catalog, bucket: Bucket
) -> None:
    ids = annotated(catalog, 3)
    storage = target(catalog, bucket)

    def delete_meanwhile(key: str, number: int) -> None:
        if number == 1:
            with catalog.begin() as connection:
                annotations.delete(connection, ids[1])

    state = export(catalog, storage, Faulty(bucket.name, delete_meanwhile))
    first = objects(bucket)
    left = {row.annotation_id: row.deleted_at is not None for row in rows(catalog, storage)}
    empty(bucket)
    export(catalog, storage)

    assert state.status is Status.COMPLETED
    assert ids_in(first) == ids
    assert json.loads(first["_MANIFEST.json"])["rows"] == 3
    assert left == {ids[0]: False, ids[1]: True, ids[2]: False}
    assert ids_in(objects(bucket)) == [ids[0], ids[2]]
    assert [row.annotation_id for row in rows(catalog, storage)] == [ids[0], ids[2]]


def test_a_project_without_annotations_has_an_empty_snapshot(
    catalog: Catalog, bucket: Bucket
) -> None:
    storage = target(catalog, bucket)

    state = export(catalog, storage)

    found = objects(bucket)
    assert state.status is Status.COMPLETED
    assert set(found) == {"_MANIFEST.json", "_SUCCESS"}
    assert json.loads(found["_MANIFEST.json"])["files"] == []


def test_annotations_in_files_are_not_exported_or_deleted_one_by_one(
    catalog: Catalog, bucket: Bucket
) -> None:
    ids = annotated(catalog, 1)
    storage = target(catalog, bucket, can_delete_objects=True)
    store = Faulty(bucket.name)

    with pytest.raises(ConfigurationError, match="snapshots"):
        asyncio.run(export_annotations(catalog, store, storage, ids))
    with pytest.raises(ConfigurationError, match="snapshots"):
        asyncio.run(delete_exported(catalog, store, storage, ids))
    with pytest.raises(ConfigurationError, match="snapshots"):
        export(catalog, storage, store, select=Selection.DELETED)

    assert store.puts == []


def test_large_annotations_make_files_of_fewer_rows(
    catalog: Catalog, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = annotated(catalog, 20)
    storage = target(catalog, bucket, rows_per_file=1_000)
    monkeypatch.setattr(snapshots, "_FILE_BYTES", 3_000)
    monkeypatch.setattr(snapshots, "_PAGE", 2)

    export(catalog, storage)

    found = objects(bucket)
    parts = [body for name, body in found.items() if name.startswith("part-")]
    assert len(parts) > 2
    assert max(len(body) for body in parts) < 3_000 + 2 * 1_000
    assert ids_in(found) == ids


@pytest.mark.parametrize("export_format", [ExportFormat.JSONL, ExportFormat.PARQUET])
def test_memory_does_not_grow_with_the_annotations(
    catalog: Catalog, bucket: Bucket, export_format: ExportFormat
) -> None:
    """Only the file that is being made is in memory: here a fiftieth of 15 MB."""
    with catalog.begin() as connection:
        source = any_storage(connection, "source", location="memory://source/")
        task_ids = import_tasks(connection, source, [f"{n:05}.jpg" for n in range(500)])
        for task_id in task_ids:
            annotations.create(connection, task_id, AnnotationRow(json.dumps(["x" * 30_000])))
    storage = target(catalog, bucket, export_format=export_format)

    class Forgetful(MemoryStore):
        """Remembers what a file was, and not its bytes."""

        def __init__(self, bucket: str) -> None:
            super().__init__(bucket)
            self.metas: dict[str, ObjectMeta] = {}

        async def put(self, key: str, body: bytes, **options: Any) -> str:
            etag = hashlib.md5(body, usedforsecurity=False).hexdigest()
            self.metas[key] = ObjectMeta(key, len(body), etag)
            return etag

        async def head(self, key: str) -> ObjectMeta:
            return self.metas[key]

    store = Forgetful(bucket.name)
    new_part(export_format).add([], [], {})  # pyarrow's first array imports all of pandas
    tracemalloc.start()
    try:
        state = export(catalog, storage, store)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert (state.status, state.counters.created) == (Status.COMPLETED, 50)
    assert peak < 5_000_000


def test_jsonl_files_are_imported_again(catalog: Catalog, bucket: Bucket) -> None:
    ids = annotated(catalog, 12)
    storage = target(catalog, bucket)
    export(catalog, storage)
    with catalog.begin() as connection:
        other = projects.add(connection, "Dogs")
        back = storages.add(
            connection,
            other.id,
            "back",
            bucket.location("out"),
            regex_filter=r".*/part-.*\.jsonl",
        )

    state = import_storage(catalog, bucket.open, back, job="test")

    with catalog.read() as connection:
        again = annotations.page(connection, project_id=other.id)
        first = annotations.get(connection, ids[0])
        task = tasks.get(connection, again[0].task_id).task
    assert (state.status, len(again)) == (Status.COMPLETED, 12)
    assert json.loads(again[0].result) == json.loads(first.result)
    assert again[0].completed_by == "ann@example.org"
    assert json.loads(task.data) == {"image": "memory://source/img/00000.jpg"}
