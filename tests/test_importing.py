"""The import engine over buckets in memory, on both databases."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from catalogs import any_storage
from labelport.catalog import Catalog, problems, schema, tasks
from labelport.errors import AccessDenied, ConfigurationError, StoreError
from labelport.importing import ImportOptions, import_storage
from labelport.loading import Limits
from labelport.model import Direction, Problem, Status, Storage, SyncState
from labelport.stores import Store
from labelport.stores.memory import MemoryStore
from memory_buckets import Bucket, Shuffled, Wrapped


def make_storage(catalog: Catalog, bucket: Bucket, prefix: str = "", **settings: Any) -> Storage:
    with catalog.begin() as connection:
        return any_storage(connection, "source", location=bucket.location(prefix), **settings)


def sync(
    catalog: Catalog,
    storage: Storage,
    open_store: Callable[[Storage], Store] | None = None,
    shards: int = 1,
    **options: Any,
) -> SyncState:

    return import_storage(
        catalog,
        open_store or (lambda storage: MemoryStore(storage.bucket, create=False)),
        storage,
        job="test",
        shards=shards,
        options=ImportOptions(**options),
    )


def links(catalog: Catalog) -> list[tuple[str, int | None, bool]]:
    """Key, row and existence of every link, in order."""
    view = schema.import_links
    with catalog.read() as connection:
        rows = connection.execute(
            sa.select(view.c.key, view.c.row_index, view.c.object_exists).order_by(
                view.c.key, view.c.row_index
            )
        )
        return [tuple(row) for row in rows]


def all_data(catalog: Catalog) -> list[Any]:
    with catalog.read() as connection:
        return [json.loads(task.data) for task in tasks.page(connection)]


def errors(catalog: Catalog, storage: Storage) -> list[Problem]:
    with catalog.read() as connection:
        return list(problems.page(connection, storage.id)[0])


def test_every_media_object_becomes_a_task_that_holds_its_uri(catalog: Catalog) -> None:
    bucket = Bucket({"img/a.jpg": b"a", "img/b c?.jpg": b"b"})
    storage = make_storage(catalog, bucket, "img", use_blob_urls=True)

    state = sync(catalog, storage)

    assert state.status is Status.COMPLETED
    assert state.last_sync_count == 2
    assert all_data(catalog) == [
        {"$undefined$": bucket.location("img/a.jpg")},
        {"$undefined$": bucket.location("img/b c?.jpg")},
    ]
    assert links(catalog) == [("img/a.jpg", None, True), ("img/b c?.jpg", None, True)]


def test_a_second_sync_of_the_same_objects_creates_nothing(catalog: Catalog) -> None:
    storage = make_storage(catalog, Bucket({"a.jpg": b"a", "b.jpg": b"b"}), use_blob_urls=True)
    sync(catalog, storage)

    state = sync(catalog, storage)

    assert (state.last_sync_count, state.counters.existed) == (0, 2)
    assert state.meta["tasks_existed"] == 2
    assert len(all_data(catalog)) == 2


@pytest.mark.parametrize("prefix", ["img", "img/"])
def test_a_prefix_is_a_folder(catalog: Catalog, prefix: str) -> None:
    bucket = Bucket({"img/a.jpg": b"", "img2k/b.jpg": b"", "img": b"", "img/c/d.jpg": b"x"})
    storage = make_storage(catalog, bucket, prefix, use_blob_urls=True)

    sync(catalog, storage)

    assert [key for key, _, _ in links(catalog)] == ["img/a.jpg", "img/c/d.jpg"]


def test_without_recursion_only_the_folder_itself_is_scanned(catalog: Catalog) -> None:
    bucket = Bucket({"img/a.jpg": b"a", "img/c/d.jpg": b"d"})
    storage = make_storage(catalog, bucket, "img", use_blob_urls=True, recursive_scan=False)

    state = sync(catalog, storage)

    assert [key for key, _, _ in links(catalog)] == ["img/a.jpg"]
    assert state.counters.scanned == 1


def test_the_filter_and_folder_markers_leave_objects_out(catalog: Catalog) -> None:
    bucket = Bucket({"img/": b"", "img/a.jpg": b"a", "img/a.txt": b"t", "img/sub/": b""})
    storage = make_storage(catalog, bucket, use_blob_urls=True, regex_filter=r".*\.jpg")

    state = sync(catalog, storage)

    assert [key for key, _, _ in links(catalog)] == ["img/a.jpg"]
    assert (state.counters.scanned, state.counters.skipped) == (4, 3)


def test_an_empty_filter_filters_nothing(catalog: Catalog) -> None:
    storage = make_storage(catalog, Bucket({"a.jpg": b"a"}), use_blob_urls=True, regex_filter="")

    assert sync(catalog, storage).last_sync_count == 1


def test_objects_that_go_and_come_back_are_told(catalog: Catalog) -> None:
    bucket = Bucket({key: b"x" for key in ("a", "b", "c", "z")})
    storage = make_storage(catalog, bucket, use_blob_urls=True)
    sync(catalog, storage)

    bucket.delete("a", "c", "z")
    gone = sync(catalog, storage)
    gone_links = links(catalog)
    bucket.put({"c": b"x"})
    back = sync(catalog, storage)

    assert gone.counters.missing == 3
    assert [(key, exists) for key, _, exists in gone_links] == [
        *(("a", False), ("b", True), ("c", False), ("z", False))
    ]
    assert (back.counters.missing, back.counters.existed) == (2, 2)
    assert [exists for _, _, exists in links(catalog)] == [False, True, True, False]


def test_an_emptied_bucket_leaves_every_link_without_its_object(catalog: Catalog) -> None:
    bucket = Bucket({"a": b"x", "b": b"x"})
    storage = make_storage(catalog, bucket, use_blob_urls=True)
    sync(catalog, storage)

    bucket.delete("a", "b")

    assert sync(catalog, storage).counters.missing == 2
    assert {exists for _, _, exists in links(catalog)} == {False}


def test_a_listing_out_of_order_loses_nothing_and_tells_what_is_missing(catalog: Catalog) -> None:
    names = ["a-b", "a/1", "a/2", "a0", "b", "b-/x", "b/1", "b/2", "b.txt", "c", "c!", "c/1"]
    bucket = Bucket({name: b"x" for name in names})
    storage = make_storage(catalog, bucket, use_blob_urls=True)

    def open_store(storage: Storage) -> Store:
        return Shuffled(storage.bucket)

    first = sync(catalog, storage, open_store, shards=4)
    again = sync(catalog, storage, open_store)
    bucket.delete("a/2", "b.txt", "c/1")
    bucket.put({"a!": b"new"})
    last = sync(catalog, storage, open_store)

    assert (first.counters.created, first.counters.missing) == (12, 0)
    assert (again.counters.existed, again.counters.missing) == (12, 0)
    assert (last.counters.created, last.counters.existed) == (1, 9)
    gone = {key for key, _, exists in links(catalog) if not exists}
    assert gone == {"a/2", "b.txt", "c/1"}


def test_a_changed_object_is_imported_again_only_when_asked(catalog: Catalog) -> None:
    bucket = Bucket({"a.json": '[{"text": "old"}, {"text": "same"}]'})
    storage = make_storage(catalog, bucket)
    sync(catalog, storage)

    bucket.put({"a.json": '[{"text": "new"}, {"text": "same"}, {"text": "more"}]'})
    seen = sync(catalog, storage)
    before = all_data(catalog)
    asked = sync(catalog, storage, reimport_changed=True)

    assert (seen.counters.changed, seen.counters.created) == (1, 0)
    assert before == [{"text": "old"}, {"text": "same"}]
    assert (asked.counters.updated, asked.counters.created) == (1, 1)
    assert all_data(catalog) == [{"text": "new"}, {"text": "same"}, {"text": "more"}]
    assert sync(catalog, storage).counters.changed == 0


def test_data_under_annotations_is_never_replaced(catalog: Catalog) -> None:
    bucket = Bucket({"a.json": '{"data": {"text": "old"}, "annotations": [{"result": []}]}'})
    storage = make_storage(catalog, bucket)
    sync(catalog, storage)

    bucket.put({"a.json": '{"data": {"text": "new"}}'})
    state = sync(catalog, storage, reimport_changed=True)

    assert state.status is Status.COMPLETED_WITH_ERRORS
    assert all_data(catalog) == [{"text": "old"}]
    assert "has annotations" in errors(catalog, storage)[0].reason


def test_rows_of_every_format_keep_their_index(catalog: Catalog) -> None:
    bucket = Bucket(
        {
            "array.json": '[{"n": 1}, {"data": {"n": 2}}]',
            "lines.jsonl": '{"n": 3}\n\n{"n": 4}\n',
            "task.json": '{\n  "data": {"n": 5}\n}',
        }
    )
    storage = make_storage(catalog, bucket)

    sync(catalog, storage)

    assert [row["n"] for row in all_data(catalog)] == [1, 2, 3, 4, 5]
    assert [(key, row) for key, row, _ in links(catalog)] == [
        *(("array.json", 0), ("array.json", 1), ("lines.jsonl", 0), ("lines.jsonl", 2)),
        ("task.json", 0),
    ]


def test_labels_come_with_their_tasks(catalog: Catalog) -> None:
    annotation = {"result": [{"type": "choices"}], "completed_by": {"email": "ann@example.org"}}
    row = {
        "data": {"text": "a"},
        "annotations": [annotation, {"result": [], "was_cancelled": True}],
        "predictions": [{"result": [{"value": 1.5}], "score": 0.5, "model_version": "v1"}],
        "allow_skip": False,
    }
    storage = make_storage(catalog, Bucket({"a.json": json.dumps([row, {"text": "b"}])}))

    sync(catalog, storage)

    with catalog.read() as connection:
        listed = tasks.page(connection)
        details = tasks.get(connection, listed[0].id)
    assert [(t.is_labeled, t.total_annotations, t.cancelled_annotations) for t in listed] == [
        *((True, 1, 1), (False, 0, 0))
    ]
    assert not listed[0].allow_skip
    assert json.loads(details.annotations[0].result) == [{"type": "choices"}]
    assert details.annotations[0].completed_by == "ann@example.org"
    assert (details.predictions[0].score, details.predictions[0].model_version) == (0.5, "v1")


BAD_OBJECTS = {
    "broken.json": b'{"data": ',
    "empty.json": b"",
    "latin1.json": b'{"text": "\xe9"}',
    "nul.json": b'{"text": "a\\u0000b"}',
    "deep.json": b'{"x": ' + b"[" * 5_000 + b"]" * 5_000 + b"}",
    "number.json": b"42",
    "picture.png": b"\x89PNG\r\n\x1a\n",
    "dataless.json": b'{"annotations": [{"result": []}]}',
    "labels.json": b'{"data": {"a": 1}, "annotations": "x"}',
    "large.json": b'{"text": "' + b"x" * 3_000 + b'"}',
}


def test_a_bad_object_is_an_error_row_and_the_others_are_imported(catalog: Catalog) -> None:
    bucket = Bucket({**BAD_OBJECTS, "a.json": b'{"n": 1}', "z.json": b'{"n": 2}'})
    storage = make_storage(catalog, bucket)

    state = sync(catalog, storage, limits=Limits(max_object_bytes=20_000, max_row_bytes=2_000))

    found = errors(catalog, storage)
    assert state.status is Status.COMPLETED_WITH_ERRORS
    assert all_data(catalog) == [{"n": 1}, {"n": 2}]
    assert {problem.key for problem in found} == set(BAD_OBJECTS)
    assert all(problem.reason and problem.remedy for problem in found)
    assert state.counters.errors == len(found)


def test_a_repaired_object_is_read_again_and_only_its_missing_rows_are_made(
    catalog: Catalog,
) -> None:
    lines = [json.dumps({"n": n}) for n in range(20)]
    bucket = Bucket({"a.jsonl": "\n".join([*lines[:9], '{"n": 9', *lines[10:]])})
    storage = make_storage(catalog, bucket)

    broken = sync(catalog, storage)
    again = sync(catalog, storage)
    bucket.put({"a.jsonl": "\n".join(lines)})
    repaired = sync(catalog, storage)

    assert (broken.counters.created, broken.counters.errors) == (19, 1)
    assert (errors(catalog, storage), repaired.status) == ([], Status.COMPLETED)
    assert (again.counters.created, again.status) == (0, Status.COMPLETED_WITH_ERRORS)
    assert repaired.counters.created == 1
    assert sorted(row["n"] for row in all_data(catalog)) == list(range(20))


def test_too_many_errors_fail_the_sync(catalog: Catalog) -> None:
    storage = make_storage(catalog, Bucket({f"{n}.json": b"{" for n in range(10)}))

    state = sync(catalog, storage, max_errors=3)

    assert state.status is Status.FAILED
    assert state.traceback is not None and "max_errors=3" in state.traceback


def test_one_unreadable_object_is_an_error_row(catalog: Catalog) -> None:
    bucket = Bucket({f"{n:02}.json": b'{"n": 1}' for n in range(30)})
    storage = make_storage(catalog, bucket)

    def refuse(key: str) -> StoreError | None:
        return AccessDenied("no right to read", uri=key) if key == "07.json" else None

    state = sync(catalog, storage, lambda storage: Wrapped(storage.bucket, refuse))

    assert (state.status, state.counters.created) == (Status.COMPLETED_WITH_ERRORS, 29)
    assert errors(catalog, storage)[0].key == "07.json"
    assert sync(catalog, storage).counters.created == 1


def test_a_store_that_refuses_every_object_fails_the_sync(catalog: Catalog) -> None:
    bucket = Bucket({f"{n:03}.json": b'{"n": 1}' for n in range(100)})
    storage = make_storage(catalog, bucket)

    state = sync(
        catalog,
        storage,
        lambda storage: Wrapped(storage.bucket, lambda key: AccessDenied("no", uri=key)),
    )

    assert state.status is Status.FAILED
    assert state.traceback is not None and "AccessDenied" in state.traceback
    assert sync(catalog, storage).counters.created == 100


def test_a_missing_bucket_fails_the_sync_with_its_name(catalog: Catalog) -> None:
    with catalog.begin() as connection:
        storage = any_storage(connection, "nowhere", location="memory://nowhere/")

    state = sync(catalog, storage)

    assert state.status is Status.FAILED
    assert state.traceback is not None and "nowhere" in state.traceback


def test_a_success_clears_the_traceback_of_a_failure(catalog: Catalog) -> None:
    bucket = Bucket({"a.json": b"{"})
    storage = make_storage(catalog, bucket)
    sync(catalog, storage, max_errors=0)

    bucket.put({"a.json": b'{"n": 1}'})
    state = sync(catalog, storage)

    assert (state.status, state.traceback) == (Status.COMPLETED, None)
    assert (state.attempts, state.time_failure) == (2, None)


@pytest.mark.parametrize("shards", [1, 3, 8])
def test_shards_divide_the_keys_without_gap_or_overlap(catalog: Catalog, shards: int) -> None:
    bucket = Bucket({f"img/{n % 7}/{n:05}.jpg": b"x" for n in range(5_000)})
    storage = make_storage(catalog, bucket, "img", use_blob_urls=True)

    first = sync(catalog, storage, shards=shards)
    second = sync(catalog, storage, shards=shards)

    assert (first.counters.created, first.counters.scanned) == (5_000, 5_000)
    assert (second.counters.created, second.counters.existed) == (0, 5_000)
    assert second.counters.missing == 0


def test_large_row_files_are_streamed_in_many_batches(catalog: Catalog) -> None:
    rows = [{"n": n, "text": "x" * 100} for n in range(30_000)]
    bucket = Bucket(
        {
            "array.json": json.dumps(rows),
            "lines.jsonl": "\n".join(json.dumps(row) for row in rows),
        }
    )
    storage = make_storage(catalog, bucket)

    state = sync(catalog, storage)

    assert (state.status, state.counters.created) == (Status.COMPLETED, 60_000)
    assert len({(key, row) for key, row, _ in links(catalog)}) == 60_000


def test_an_export_storage_cannot_be_imported(catalog: Catalog) -> None:
    storage = make_storage(catalog, Bucket(), direction=Direction.EXPORT)

    with pytest.raises(ConfigurationError, match="export storage"):
        sync(catalog, storage)


def test_progress_reaches_the_final_counters(catalog: Catalog) -> None:
    storage = make_storage(catalog, Bucket({"a": b"x", "b": b"y"}), use_blob_urls=True)
    told = []

    import_storage(
        catalog, Bucket().open, storage, job="test", on_progress=lambda p: told.append(p)
    )

    assert told[-1].counters.created == 2
