"""What was exported is imported again, and is the same: both formats, both databases."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from msgspec.structs import replace

from catalogs import any_storage
from labelport.catalog import Catalog, problems, projects, schema, storages, tasks
from labelport.formats.exported import annotation_line, object_body
from labelport.formats.keys import object_key
from labelport.importing import ImportOptions, import_storage
from labelport.model import (
    ByteRange,
    Direction,
    ExportFormat,
    ExportUnit,
    Problem,
    Status,
    Storage,
    SyncState,
)
from labelport.stores import ObjectStream
from labelport.stores.memory import MemoryStore
from memory_buckets import Bucket

MADE = "2026-11-02T10:00:00.123456Z"
LATER = "2026-11-04T10:00:00Z"

ROWS: list[dict[str, Any]] = [
    {
        "data": {"image": "s3://cats/a.jpg", "text": 'ä \u2028 \\ "q"', "n": 1.25},
        "meta": {"batch": 7},
        "allow_skip": False,
        "annotations": [
            {
                "result": [{"type": "choices", "value": {"choices": ["cat"]}}],
                "completed_by": {"email": "ann@example.org"},
                "lead_time": 2.5,
                "ground_truth": True,
                "created_at": MADE,
                "updated_at": "2026-11-03T10:00:00Z",
            },
            {"result": [{"id": "x"}], "completed_by": 17, "was_cancelled": True},
            {"result": [{"id": "y"}], "completed_by": "bo", "created_at": MADE},
        ],
        "predictions": [{"result": [{"id": "p"}], "score": 0.5, "model_version": "v1"}],
    },
    {"data": {"image": "s3://cats/b.jpg"}, "annotations": [{"result": [], "created_at": MADE}]},
]


def sync(
    catalog: Catalog,
    storage: Storage,
    store: type[MemoryStore] = MemoryStore,
    *,
    shards: int = 1,
    **options: Any,
) -> SyncState:
    return import_storage(
        catalog,
        lambda storage: store(storage.bucket, create=False),
        storage,
        job="test",
        shards=shards,
        options=ImportOptions(**options),
    )


def labelled(catalog: Catalog, rows: Sequence[dict[str, Any]] = ROWS) -> list[ExportUnit]:
    """Some labelled tasks of a project, as an export reads them: a unit for each task."""
    with catalog.begin() as connection:
        bucket = Bucket({"tasks.json": json.dumps(rows)})
        storage = any_storage(connection, "origin", location=bucket.location())
    sync(catalog, storage)
    return units(catalog, storage.project_id)


def units(catalog: Catalog, project_id: int) -> list[ExportUnit]:
    with catalog.read() as connection:
        found = [
            tasks.get(connection, task.id)
            for task in tasks.page(connection, project_id=project_id, limit=10_000)
        ]
    return [ExportUnit(each.task, each.annotations, each.predictions) for each in found]


def exported(
    whole: Sequence[ExportUnit],
    export_format: ExportFormat = ExportFormat.ANNOTATION,
    key_template: str | None = None,
) -> dict[str, bytes]:
    """The objects that an export makes of *whole* tasks."""
    storage = Storage(
        *(0, 0, "labels", Direction.EXPORT, "memory", "labels"),
        export_format=export_format,
        key_template=key_template,
    )
    if export_format is not ExportFormat.TASK:
        whole = [ExportUnit(unit.task, [each]) for unit in whole for each in unit.annotations]
    return {object_key(storage, unit): object_body(storage, unit) for unit in whole}


def target(catalog: Catalog, bucket: Bucket, name: str = "copy") -> Storage:
    """An import storage of another project."""
    with catalog.begin() as connection:
        project = projects.add(connection, name)
        return storages.add(connection, project.id, name, bucket.location())


def content(catalog: Catalog, project_id: int, *, predictions: bool = True) -> list[Any]:
    """All that must survive, without ids; in an order of its own."""
    rows = [
        (
            json.dumps(json.loads(unit.task.data), sort_keys=True),
            json.loads(unit.task.meta or "null"),
            (unit.task.allow_skip, unit.task.is_labeled),
            (unit.task.total_annotations, unit.task.cancelled_annotations),
            sorted(
                (
                    *(a.result, a.completed_by or "", a.was_cancelled, a.ground_truth),
                    *(a.lead_time or 0, a.created_at, a.updated_at),
                )
                for a in unit.annotations
            ),
            [(p.result, p.score, p.model_version) for p in unit.predictions if predictions],
        )
        for unit in units(catalog, project_id)
    ]
    return sorted(rows, key=lambda row: row[0])


def errors(catalog: Catalog, storage: Storage) -> list[Problem]:
    with catalog.read() as connection:
        return list(problems.page(connection, storage.id)[0])


@pytest.mark.parametrize("export_format", [ExportFormat.ANNOTATION, ExportFormat.TASK])
def test_what_was_exported_comes_back(catalog: Catalog, export_format: ExportFormat) -> None:
    whole = labelled(catalog)
    copy = target(catalog, Bucket(exported(whole, export_format)))

    state = sync(catalog, copy)

    assert (state.status, state.last_sync_count) == (Status.COMPLETED, 2)
    of_tasks = export_format is ExportFormat.TASK  # annotations alone bring no predictions
    origin = whole[0].task.project_id
    assert content(catalog, copy.project_id) == content(catalog, origin, predictions=of_tasks)


@pytest.mark.parametrize("export_format", [ExportFormat.ANNOTATION, ExportFormat.TASK])
def test_a_second_import_adds_nothing(catalog: Catalog, export_format: ExportFormat) -> None:
    copy = target(catalog, Bucket(exported(labelled(catalog), export_format)))
    sync(catalog, copy)
    before = content(catalog, copy.project_id)

    state = sync(catalog, copy, reimport_changed=True)

    assert (state.status, state.last_sync_count) == (Status.COMPLETED, 0)
    assert content(catalog, copy.project_id) == before


def test_what_came_back_is_exported_the_same(catalog: Catalog) -> None:
    """Down to the annotators' spelling; only ids and the task's own times differ."""
    whole = labelled(catalog)
    copy = target(catalog, Bucket(exported(whole)))
    sync(catalog, copy)

    def bodies(units: Sequence[ExportUnit]) -> list[dict[str, Any]]:
        found = [json.loads(body) for body in exported(units).values()]
        for body in found:
            del body["id"], body["project"]
            body["task"] = [body["task"][name] for name in ("data", "meta", "allow_skip")]
        return sorted(found, key=lambda body: json.dumps(body["result"]))

    assert bodies(units(catalog, copy.project_id)) == bodies(whole)


MANY = [
    {
        "data": {"n": number},
        "annotations": [
            {"result": [{"id": f"{number}-{who}"}], "completed_by": who, "created_at": MADE}
            for who in ("ann@example.org", "bo", "cy")
        ],
    }
    for number in range(60)
]


@pytest.mark.parametrize("shards", [1, 4])
def test_annotations_of_one_task_meet_whatever_way_they_come(catalog: Catalog, shards: int) -> None:
    """Keys by annotator: each task's three annotations lie in three shards, or batches."""
    whole = labelled(catalog, MANY)
    objects = exported(whole, key_template="{annotator}/{task_id}.json")
    copy = target(catalog, Bucket(objects))

    state = sync(catalog, copy, shards=shards)

    assert len(objects) == 180
    assert (state.status, state.last_sync_count) == (Status.COMPLETED, 60)
    assert content(catalog, copy.project_id) == content(catalog, whole[0].task.project_id)


def test_two_storages_that_are_synced_at_once_share_the_tasks(catalog: Catalog) -> None:
    whole = labelled(catalog, MANY)
    halves: list[dict[str, bytes]] = [{}, {}]
    for number, body in enumerate(exported(whole).values()):
        # In opposite order, so that each makes tasks which the other wants.
        halves[number % 2][f"{number if number % 2 else 999 - number:03}"] = body
    one = target(catalog, Bucket(halves[0]))
    with catalog.begin() as connection:
        place = Bucket(halves[1]).location()
        other = storages.add(connection, one.project_id, "other", place)
    states: list[SyncState] = []
    threads = [
        threading.Thread(target=lambda each=each: states.append(sync(catalog, each)))
        for each in (one, other)
    ]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [state.status for state in states] == [Status.COMPLETED] * 2
    assert sum(state.last_sync_count or 0 for state in states) == 60
    assert content(catalog, one.project_id) == content(catalog, whole[0].task.project_id)


def test_lines_come_back_and_a_repaired_file_adds_only_what_is_new(catalog: Catalog) -> None:
    """All lines of a file that had a bad one are read again; the good ones are known."""
    whole = labelled(catalog)
    lines = [annotation_line(unit, each) for unit in whole for each in unit.annotations]
    bucket = Bucket({"part.jsonl": b"".join((*lines[:2], b"{broken\n", lines[3]))})
    copy = target(catalog, bucket)

    broken = sync(catalog, copy)
    again = sync(catalog, copy)
    bucket.put({"part.jsonl": b"".join(lines)})
    repaired = sync(catalog, copy)

    assert (broken.status, broken.last_sync_count) == (Status.COMPLETED_WITH_ERRORS, 2)
    assert (again.status, again.last_sync_count) == (Status.COMPLETED_WITH_ERRORS, 0)
    assert (repaired.status, repaired.last_sync_count) == (Status.COMPLETED, 0)
    origin = whole[0].task.project_id
    assert content(catalog, copy.project_id) == content(catalog, origin, predictions=False)


class PowerCut(MemoryStore):
    """A memory store that the process does not outlive: an object's first 5 MiB, then the end."""

    def open(self, key: str, byte_range: ByteRange | None = None, **options: Any) -> Any:
        @asynccontextmanager
        async def opened() -> AsyncIterator[ObjectStream]:
            async with super(PowerCut, self).open(key, byte_range, **options) as stream:
                yield _Cut(stream)

        return opened()


class _Cut:
    def __init__(self, stream: ObjectStream) -> None:
        self._stream = stream
        self.meta = stream.meta

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = 5 * 2**20
        async for chunk in self._stream:
            yield chunk
            left -= len(chunk)
            if left <= 0:
                raise RuntimeError("power cut")


def test_a_sync_that_died_goes_on_and_adds_no_annotation_twice(catalog: Catalog) -> None:
    """Of each task, some annotations were saved before and some were not."""
    (unit, *_) = labelled(catalog)
    lines = [
        annotation_line(
            replace(unit, task=replace(unit.task, id=1 + number % 4_000)),
            replace(unit.annotations[0], id=1 + number, completed_by=f"{number // 4_000}"),
        )
        for number in range(12_000)
    ]
    copy = target(catalog, Bucket({"part.jsonl": b"".join(lines)}))

    died = sync(catalog, copy, PowerCut)
    with catalog.read() as connection:
        before = counts(connection, copy.project_id)
    resumed = sync(catalog, copy)

    assert died.status is Status.FAILED
    assert "power cut" in (died.traceback or "")
    assert before[0] == 4_000 and 4_000 < before[1] < 12_000
    assert (resumed.status, resumed.last_sync_count) == (Status.COMPLETED, 0)
    with catalog.read() as connection:
        assert counts(connection, copy.project_id) == (4_000, 12_000, 3)


def counts(connection: sa.Connection, project_id: int) -> tuple[int, int, int]:
    """Tasks, annotations, and the most annotations that a task counts."""
    tasks_, annotations = schema.tasks, schema.annotations
    made = connection.execute(
        sa.select(sa.func.count(), sa.func.max(tasks_.c.total_annotations)).where(
            tasks_.c.project_id == project_id
        )
    ).one()
    of_project = annotations.c.project_id == project_id
    saved = connection.scalar(sa.select(sa.func.count()).where(of_project)) or 0
    return made[0], saved, made[1]


def test_an_annotation_exported_anew_is_not_a_second_one(catalog: Catalog) -> None:
    objects = exported(labelled(catalog))
    bucket = Bucket(objects)
    copy = target(catalog, bucket)
    sync(catalog, copy)
    before = content(catalog, copy.project_id)

    bucket.put(
        {key: body.replace(b'"lead_time"', b'"lead_time" ') for key, body in objects.items()}
    )
    state = sync(catalog, copy, reimport_changed=True)

    assert state.counters.changed == len(objects)
    assert content(catalog, copy.project_id) == before


def test_a_place_that_is_added_again_adds_nothing(catalog: Catalog) -> None:
    """Its tasks stayed when the storage was removed."""
    bucket = Bucket(exported(labelled(catalog)))
    copy = target(catalog, bucket)
    sync(catalog, copy)
    before = content(catalog, copy.project_id)
    with catalog.begin() as connection:
        storages.remove(connection, copy.id)
        again = storages.add(connection, copy.project_id, "again", bucket.location())

    state = sync(catalog, again)

    assert (state.status, state.last_sync_count) == (Status.COMPLETED, 0)
    assert content(catalog, copy.project_id) == before


def test_labels_that_changed_in_the_bucket_are_told_and_not_added(catalog: Catalog) -> None:
    bucket = Bucket({"1": annotation({"id": 1, "project": 1, "data": {"n": 1}}, "x", MADE)})
    copy = target(catalog, bucket)
    bucket.put({"2": annotation({"id": 1, "project": 1, "data": {"n": 1}}, "y", LATER)})
    sync(catalog, copy)
    bucket.put({"2": annotation({"id": 1, "project": 1, "data": {"n": 1}}, "new", LATER)})

    state = sync(catalog, copy, reimport_changed=True)

    (problem,) = errors(catalog, copy)
    (unit,) = units(catalog, copy.project_id)
    assert state.status is Status.COMPLETED_WITH_ERRORS
    assert (problem.key, problem.row) == ("2", 0)
    assert "an annotation of its old labels" in problem.reason
    assert [json.loads(each.result) for each in unit.annotations] == [[{"id": "x"}], [{"id": "y"}]]


def annotation(task: dict[str, Any], label: str = "x", created_at: str | None = None) -> str:
    return json.dumps({"result": [{"id": label}], "created_at": created_at, "task": task})


def test_labels_never_move_to_other_data(catalog: Catalog) -> None:
    """Two systems may number their tasks alike."""
    mine = annotation({"id": 1, "project": 1, "data": {"n": 1}})
    foreign = annotation({"id": 1, "project": 1, "data": {"n": 2}})
    bucket = Bucket({"1": mine, "2": foreign})
    copy = target(catalog, bucket)

    together = sync(catalog, copy)
    later = sync(catalog, copy)
    (problem,) = errors(catalog, copy)
    bucket.put({"2": annotation({"id": 2, "project": 1, "data": {"n": 2}})})
    repaired = sync(catalog, copy)

    assert together.status is later.status is Status.COMPLETED_WITH_ERRORS
    assert (problem.key, problem.row) == ("2", 0)
    assert "task 1/1" in problem.reason
    assert (repaired.status, repaired.last_sync_count) == (Status.COMPLETED, 1)
    assert [len(unit.annotations) for unit in units(catalog, copy.project_id)] == [1, 1]


def test_annotations_without_ids_of_their_task_make_a_task_each(catalog: Catalog) -> None:
    bucket = Bucket({key: annotation({"data": {"n": 1}}) for key in "ab"})
    copy = target(catalog, bucket)

    assert sync(catalog, copy).last_sync_count == 2


def test_a_task_that_was_deleted_is_made_again_by_the_next_annotation(catalog: Catalog) -> None:
    task = {"id": 1, "project": 1, "data": {"n": 1}}
    bucket = Bucket({"1": annotation(task)})
    copy = target(catalog, bucket)
    sync(catalog, copy)
    with catalog.begin() as connection:
        tasks.delete(connection, [unit.task.id for unit in units(catalog, copy.project_id)])
    bucket.delete("1")
    bucket.put({"2": annotation(task)})

    assert sync(catalog, copy).last_sync_count == 1


def test_counters_follow_annotations_that_join_later(catalog: Catalog) -> None:
    task = {"id": 1, "project": 1, "data": {"n": 1}}
    bucket = Bucket({"1": json.dumps({"result": [], "was_cancelled": True, "task": task})})
    copy = target(catalog, bucket)
    sync(catalog, copy)
    bucket.put({"2": annotation(task), "3": annotation(task)})

    state = sync(catalog, copy)

    (unit,) = units(catalog, copy.project_id)
    assert state.last_sync_count == 0
    assert (unit.task.total_annotations, unit.task.cancelled_annotations) == (2, 1)
    assert unit.task.is_labeled
    assert unit.annotations[1].created_at > datetime(2026, 1, 1, tzinfo=UTC)
