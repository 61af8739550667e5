"""Annotations, their events, their tasks' counters and the ledger's tombstones."""

from __future__ import annotations

import json
import threading
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from catalogs import any_storage, import_tasks
from labelport.catalog import (
    annotations,
    deleted_annotations,
    events,
    ledger,
    projects,
    recording,
    schema,
    source_annotations,
    storages,
    tasks,
)
from labelport.catalog.recording import Outcome
from labelport.errors import NotFound
from labelport.model import AnnotationRow, Direction, EventKind

ROW = AnnotationRow('[{"value": 1.10}]', completed_by="ann@example.com")
FUTURE = datetime.now(UTC) + timedelta(days=1)


@pytest.fixture
def connection(catalog):
    with catalog.begin() as connection:
        yield connection


@pytest.fixture
def storage(connection):
    return any_storage(connection)


@pytest.fixture
def task_id(connection, storage):
    (task_id,) = import_tasks(connection, storage, ["2024/a.jpg"])
    return task_id


@pytest.fixture
def exports(connection, storage):
    """An export storage of the same project."""
    return any_storage(connection, "labels", direction=Direction.EXPORT)


def test_an_annotation_is_what_was_given(connection, task_id):
    moment = datetime(2024, 5, 1, 12, 30, tzinfo=UTC)
    row = ROW._replace(ground_truth=True, lead_time=1.5, created_at=moment)

    made = annotations.create(connection, task_id, row)
    assert annotations.get(connection, made.id) == made
    assert json.loads(made.result) == [{"value": 1.1}]
    assert (made.task_id, made.completed_by, made.ground_truth, made.lead_time) == (
        *(task_id, "ann@example.com", True, 1.5),
    )
    assert (made.created_at, made.updated_at) == (moment, moment)


def test_an_update_changes_what_is_given(connection, task_id):
    made = annotations.create(connection, task_id, ROW)

    changed = annotations.update(connection, made.id, result='["x"]', completed_by=None)
    assert annotations.get(connection, made.id) == changed
    assert (json.loads(changed.result), changed.completed_by) == (["x"], None)
    assert changed.created_at == made.created_at
    assert changed.updated_at >= made.updated_at


def test_the_task_counts_its_annotations(connection, task_id):
    first = annotations.create(connection, task_id, ROW)
    assert _counters(connection, task_id) == (1, 0, True)
    second = annotations.create(connection, task_id, ROW._replace(was_cancelled=True))
    assert _counters(connection, task_id) == (1, 1, True)
    annotations.update(connection, first.id, was_cancelled=True)
    assert _counters(connection, task_id) == (0, 2, False)
    annotations.update(connection, second.id, was_cancelled=False)
    annotations.delete(connection, first.id)
    assert _counters(connection, task_id) == (1, 0, True)
    annotations.delete(connection, second.id)
    assert _counters(connection, task_id) == (0, 0, False)


def test_a_task_is_labeled_by_as_many_annotations_as_it_wants(connection, task_id):
    connection.execute(schema.tasks.update().values(overlap=2))

    annotations.create(connection, task_id, ROW)
    assert _counters(connection, task_id) == (1, 0, False)
    annotations.create(connection, task_id, ROW)
    assert _counters(connection, task_id) == (2, 0, True)


def test_every_change_is_an_event(connection, storage, task_id):
    made = annotations.create(connection, task_id, ROW)
    annotations.update(connection, made.id, lead_time=2.0)
    annotations.delete(connection, made.id)

    found = events.after(connection, storage.project_id, 0)
    assert [event.kind for event in found] == list(EventKind)
    assert {event[1:4] for event in found} == {(storage.project_id, task_id, made.id)}
    assert events.after(connection, storage.project_id, found[0].id, limit=1) == found[1:2]
    assert events.after(connection, storage.project_id, found[-1].id) == []
    assert events.after(connection, storage.project_id + 1, 0) == []


def test_a_change_that_is_rolled_back_never_happened(catalog):
    with catalog.begin() as connection:
        storage = any_storage(connection)
        (task_id,) = import_tasks(connection, storage, ["2024/a.jpg"])
    with pytest.raises(ZeroDivisionError), catalog.begin() as connection:
        annotations.create(connection, task_id, ROW)
        _ = 1 / 0

    with catalog.read() as connection:
        assert events.newest(connection, storage.project_id) == 0
        assert annotations.page(connection) == []


def test_what_is_not_there_is_not_found_and_leaves_no_trace(connection, storage, task_id):
    for change in (
        lambda: annotations.create(connection, task_id + 1, ROW),
        lambda: annotations.update(connection, 99, was_cancelled=True),
        lambda: annotations.delete(connection, 99),
        lambda: annotations.get(connection, 99),
    ):
        with pytest.raises(NotFound, match=r"labelport (tasks|annotations) list"):
            change()

    assert events.newest(connection, storage.project_id) == 0


def test_pages_are_of_one_task_or_project(connection, storage):
    one, two = import_tasks(connection, storage, ["2024/a.jpg", "2024/b.jpg"])
    made = [annotations.create(connection, task, ROW) for task in (one, two, one)]

    assert annotations.page(connection, task_id=one) == [made[0], made[2]]
    assert annotations.page(connection, project_id=storage.project_id, limit=2) == made[:2]
    assert annotations.page(connection, after=made[1].id) == made[2:]
    assert annotations.page(connection, project_id=storage.project_id + 1) == []


def test_an_annotation_that_is_deleted_leaves_a_tombstone(connection, task_id, exports):
    made, other = (annotations.create(connection, task_id, ROW) for _ in range(2))
    for annotation in (made, other):
        _exported(connection, exports, annotation)

    annotations.delete(connection, made.id)
    gone, left = ledger.page(connection, exports.id)
    assert gone.annotation_id == made.id
    assert gone.deleted_at is not None
    assert (gone.key, gone.object_exists) == (str(made.id), True)
    assert left.deleted_at is None


def test_deleting_tasks_deletes_their_annotations_with_events_and_tombstones(
    connection, storage, exports
):
    one, two = import_tasks(connection, storage, ["2024/a.jpg", "2024/b.jpg"])
    made = [annotations.create(connection, task, ROW) for task in (one, one, two)]
    for annotation in made:
        _exported(connection, exports, annotation)
    seen = events.newest(connection, storage.project_id)

    assert tasks.delete(connection, [one]) == 1
    _assert_deleted(connection, storage, exports, seen, made[:2])
    assert annotations.page(connection) == made[2:]


def test_removing_a_storage_with_its_tasks_does_so_too(connection, storage, exports):
    ids = import_tasks(connection, storage, ["2024/a.jpg", "2024/b.jpg"])
    made = [annotations.create(connection, task, ROW) for task in ids]
    for annotation in made:
        _exported(connection, exports, annotation)
    seen = events.newest(connection, storage.project_id)

    storages.remove(connection, storage.id, delete_tasks=True)
    _assert_deleted(connection, storage, exports, seen, made)


def _assert_deleted(connection, storage, exports, seen, gone):
    found = events.after(connection, storage.project_id, seen)
    assert [(event.kind, event.task_id, event.annotation_id) for event in found] == [
        (EventKind.DELETED, annotation.task_id, annotation.id) for annotation in gone
    ]
    links = ledger.page(connection, exports.id)
    dead = [link.annotation_id for link in links if link.deleted_at is not None]
    assert dead == [annotation.id for annotation in gone]


def test_an_annotation_that_a_tool_sent_is_remembered_when_it_is_deleted(connection, task_id):
    """By the project and the tool's id; one that no tool sent leaves nothing."""
    theirs = annotations.create(connection, task_id, ROW, source_id="17")
    ours = annotations.create(connection, task_id, ROW)
    annotations.delete(connection, theirs.id)
    annotations.delete(connection, ours.id)

    assert _remembered(connection) == [("17", False)]
    then, later = theirs.updated_at, datetime.now(UTC) + timedelta(minutes=1)
    assert [_stays(connection, "17", moment) for moment in (None, then, later)] == [1, 1, 0]
    assert _stays(connection, "18", then) is False
    assert _stays(connection, "17", then, project_id=99) is False


def test_what_came_back_may_be_deleted_again(connection, task_id):
    for _ in range(2):
        made = annotations.create(connection, task_id, ROW, source_id="17")
        annotations.delete(connection, made.id)
    assert _remembered(connection) == [("17", False)]
    annotations.create(connection, task_id, ROW, source_id="17")

    assert source_annotations.delete(connection, 1, ["17"]) == 1
    assert _remembered(connection) == [("17", True)]
    assert _stays(connection, "17", FUTURE) is True


def test_annotations_that_go_with_their_task_are_not_remembered(connection, task_id):
    """Without the task nothing comes back; and its annotations may come with another."""
    annotations.create(connection, task_id, ROW, source_id="17")

    tasks.delete(connection, [task_id])
    assert _remembered(connection) == []


def test_a_tool_deletes_many_annotations_as_if_one_by_one(connection, storage, exports):
    """Events, tombstones and counters; those of other projects, or unknown, are left alone."""
    one, two = import_tasks(connection, storage, ["2024/a.jpg", "2024/b.jpg"])
    dogs = storages.add(connection, projects.add(connection, "Dogs").id, "dogs", "s3://dogs")
    (dog,) = import_tasks(connection, dogs, ["2024/rex.jpg"])
    gone = [
        annotations.create(connection, task, ROW, source_id=name)
        for task, name in ((one, "a"), (one, "b"), (two, "c"))
    ]
    left = annotations.create(connection, one, ROW, source_id="d")
    theirs = annotations.create(connection, dog, ROW, source_id="a")
    for annotation in gone:
        _exported(connection, exports, annotation)
    seen = events.newest(connection, storage.project_id)

    names = ["c", "a", "b", "e"]
    assert source_annotations.delete(connection, storage.project_id, names) == 3
    _assert_deleted(connection, storage, exports, seen, gone)
    assert annotations.page(connection) == [left, theirs]
    assert [_counters(connection, task) for task in (one, two)] == [(1, 0, True), (0, 0, False)]
    assert _remembered(connection) == [("a", True), ("b", True), ("c", True)]


def test_many_annotations_are_deleted_by_as_many_statements_as_one(connection, storage):
    (task_id,) = import_tasks(connection, storage, ["2024/a.jpg"])
    names = [str(number) for number in range(50)]
    for name in names:
        annotations.create(connection, task_id, ROW, source_id=name)
    statements: list[str] = []
    sa.event.listen(connection, "before_cursor_execute", lambda *args: statements.append(args[2]))

    source_annotations.delete(connection, storage.project_id, names[:1])
    of_one = len(statements)
    source_annotations.delete(connection, storage.project_id, names[1:])
    assert len(statements) == 2 * of_one


def test_events_of_a_project_commit_in_order_of_their_ids(catalog):
    """A writer that took its turn first is seen first, however long it takes to commit."""
    storage, first, second = _two_tasks(catalog)
    begun = threading.Event()

    def write_second() -> None:
        begun.wait(timeout=30)
        with catalog.begin() as connection:
            annotations.create(connection, second, ROW)

    thread = threading.Thread(target=write_second)
    thread.start()
    with catalog.begin() as connection:
        made = annotations.create(connection, first, ROW)
        begun.set()
        thread.join(timeout=0.5)
        assert thread.is_alive()  # it waits for us, or its event would commit before ours
        with catalog.read() as reader:
            assert events.after(reader, storage.project_id, 0) == []
    thread.join(timeout=30)

    with catalog.read() as connection:
        found = events.after(connection, storage.project_id, 0)
    assert [event.task_id for event in found] == [first, second]
    assert found[0].annotation_id == made.id


def test_a_reader_loses_no_event_of_many_writers(catalog):
    """A cursor that only moves forward meets every event of four writers at once."""
    storage, *task_ids = _two_tasks(catalog)
    seen: list[int] = []

    def write(number: int) -> None:
        for _ in range(15):
            with catalog.begin() as connection:
                annotations.create(connection, task_ids[number % 2], ROW)

    threads = [threading.Thread(target=write, args=[number]) for number in range(4)]
    with ExitStack() as ending:
        for thread in threads:
            thread.start()
            ending.callback(thread.join)
        while True:
            writing = any(thread.is_alive() for thread in threads)
            with catalog.read() as connection:
                found = events.after(connection, storage.project_id, seen[-1] if seen else 0, 7)
            seen += [event.id for event in found]
            if not (writing or found):
                break

    with catalog.read() as connection:
        every = events.after(connection, storage.project_id, 0)
        assert [event.id for event in every] == seen
        assert [_counters(connection, task)[0] for task in task_ids] == [30, 30]


def test_two_projects_do_not_wait_for_each_other(catalog):
    if catalog.engine.dialect.name == "sqlite":
        pytest.skip("SQLite has one writer")
    _, mine, _ = _two_tasks(catalog)
    with catalog.begin() as connection:
        dogs = projects.add(connection, "Dogs")
        other = storages.add(connection, dogs.id, "dogs", "s3://dogs")
        (theirs,) = import_tasks(connection, other, ["a.jpg"])

    with catalog.begin() as one, catalog.begin() as two:
        annotations.create(one, mine, ROW)
        annotations.create(two, theirs, ROW)


def test_an_annotation_of_a_task_that_is_being_deleted_is_refused(catalog):
    """Whoever deletes comes first, and no annotation is left without its task."""
    _, task_id, _ = _two_tasks(catalog)
    begun, refused = threading.Event(), []

    def annotate() -> None:
        begun.wait(timeout=30)
        try:
            with catalog.begin() as connection:
                annotations.create(connection, task_id, ROW)
        except NotFound as error:
            refused.append(error)

    thread = threading.Thread(target=annotate)
    thread.start()
    with catalog.begin() as connection:
        tasks.delete(connection, [task_id])
        begun.set()
        thread.join(timeout=0.5)
    thread.join(timeout=30)

    assert len(refused) == 1
    with catalog.read() as connection:
        assert annotations.page(connection) == []


def test_a_deletion_and_a_ledger_that_is_written_meanwhile_do_not_deadlock(catalog):
    """Both lock annotations in order of id, in whatever order the table holds them."""
    if catalog.engine.dialect.name == "sqlite":
        pytest.skip("SQLite has one writer")
    _, task_id, _ = _two_tasks(catalog)
    with catalog.begin() as connection:
        exports = any_storage(connection, "labels", direction=Direction.EXPORT)
        for number in (30, 20, 10):
            connection.execute(
                schema.annotations.insert().values(
                    id=number, task_id=task_id, project_id=exports.project_id, result=[]
                )
            )
    outcomes = [Outcome(number, task_id, str(number), "d", "e") for number in (10, 20, 30)]
    failed: list[Exception] = []

    def run(change) -> None:
        try:
            with catalog.begin() as connection:
                change(connection)
        except Exception as error:
            failed.append(error)

    threads = [
        threading.Thread(target=run, args=[lambda c: tasks.delete(c, [task_id])]),
        threading.Thread(target=run, args=[lambda c: recording.record(c, exports.id, outcomes)]),
    ]
    middle = sa.select(schema.annotations.c.id).where(schema.annotations.c.id == 20)
    with catalog.begin() as connection:
        connection.execute(middle.with_for_update())
        for thread in threads:
            thread.start()
            thread.join(timeout=0.5)  # long enough to come to the annotation in the middle
    for thread in threads:
        thread.join(timeout=30)

    assert failed == []
    with catalog.read() as connection:
        links = ledger.page(connection, exports.id)
        assert [link.annotation_id for link in links] == [10, 20, 30]
        assert all(link.deleted_at is not None for link in links)


def test_the_newest_event_is_told_of_one_project_or_all(connection, storage, task_id):
    empty = projects.add(connection, "Dogs")
    annotations.create(connection, task_id, ROW)

    newest = events.newest(connection, storage.project_id)
    assert newest > 0
    assert events.newest(connection, empty.id) == 0
    assert events.newest_of_all(connection) == {storage.project_id: newest, empty.id: 0}


def test_a_watermark_moves_only_forward(connection, exports):
    assert events.watermark(connection, exports.id) == 0
    assert events.move_watermark(connection, exports.id, 5) is True
    assert events.move_watermark(connection, exports.id, 5) is False
    assert events.move_watermark(connection, exports.id, 3) is False
    assert events.watermark(connection, exports.id) == 5
    with pytest.raises(NotFound):
        events.watermark(connection, 99)


def test_events_are_pruned_once_every_export_storage_has_passed_them(
    connection, storage, task_id, exports
):
    other = any_storage(connection, "archive", direction=Direction.EXPORT)
    for _ in range(3):
        annotations.create(connection, task_id, ROW)
    ids = [event.id for event in events.after(connection, storage.project_id, 0)]
    events.move_watermark(connection, exports.id, ids[2])
    assert events.prune(connection, FUTURE) == 0
    events.move_watermark(connection, other.id, ids[1])

    assert events.prune(connection, datetime.now(UTC) - timedelta(days=1)) == 0
    assert events.prune(connection, FUTURE) == 2
    assert [event.id for event in events.after(connection, storage.project_id, 0)] == ids[2:]
    storages.update(connection, other.id, synchronizable=False)
    assert events.prune(connection, FUTURE) == 1


def test_the_ledger_comes_in_pages_and_counts(connection, task_id, exports):
    made = [annotations.create(connection, task_id, ROW) for _ in range(4)]
    for annotation in made:
        _exported(connection, exports, annotation)
    failed = schema.export_links.c.annotation_id == made[1].id
    connection.execute(
        schema.export_links.update().where(failed).values(error="busy", object_exists=False)
    )
    annotations.delete(connection, made[3].id)

    ids = [annotation.id for annotation in made]
    assert _ledger(connection, exports, limit=3) == ids[:3]
    assert _ledger(connection, exports, after=ids[2]) == ids[3:]
    assert _ledger(connection, exports, failed=True) == ids[1:2]
    assert _ledger(connection, exports, failed=False) == [ids[0], *ids[2:]]
    assert ledger.counts(connection, exports.id) == (2, 1, 1)
    assert ledger.counts(connection, 99) == (0, 0, 0)


def _two_tasks(catalog):
    with catalog.begin() as connection:
        storage = any_storage(connection)
        return storage, *import_tasks(connection, storage, ["2024/a.jpg", "2024/b.jpg"])


def _counters(connection, task_id):
    task = tasks.get(connection, task_id).task
    return task.total_annotations, task.cancelled_annotations, task.is_labeled


def _remembered(connection):
    """The tools' ids of what was deleted, and whether the tools did it."""
    columns = schema.deleted_annotations.c
    query = sa.select(columns.source_id, columns.by_tool).order_by(columns.source_id)
    return [tuple(row) for row in connection.execute(query)]


def _stays(connection, source_id, moment, project_id=1):
    return deleted_annotations.stays_deleted(connection, project_id, source_id, moment)


def _exported(connection, storage, annotation):
    connection.execute(
        schema.export_links.insert().values(
            storage_id=storage.id,
            annotation_id=annotation.id,
            task_id=annotation.task_id,
            key=str(annotation.id),
            digest="d1",
            etag="e1",
            object_exists=True,
            attempts=1,
        )
    )


def _ledger(connection, storage, **which):
    return [link.annotation_id for link in ledger.page(connection, storage.id, **which)]
