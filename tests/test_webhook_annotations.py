"""What a labeling tool's webhook says becomes annotations, with the events that exports follow."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta

import pytest

from catalogs import any_storage, import_tasks
from labelport.catalog import annotations, events, projects, source_annotations, storages, tasks
from labelport.errors import FormatError, NotFound
from labelport.hearing import Received, receive
from labelport.model import AnnotationRow, EventKind

RESULT = [{"value": {"choices": ["cat"]}, "from_name": "kind", "to_name": "image", "id": "x"}]
OTHER = [{"value": {"choices": ["dog"]}}]
CREATED, UPDATED = Received(created=1), Received(updated=1)
DELETED, IGNORED = Received(deleted=1), Received(ignored=1)
AT_FIRST = "2024-05-01T12:01:00.123456Z"


@pytest.fixture
def task_ids(catalog) -> list[int]:
    """Two tasks of the project "Cats"."""
    with catalog.begin() as connection:
        return import_tasks(connection, any_storage(connection), ["2024/a.jpg", "2024/b.jpg"])


@pytest.fixture
def dog_id(catalog) -> int:
    """A task of the project "Dogs"."""
    with catalog.begin() as connection:
        project = projects.add(connection, "Dogs")
        storage = storages.add(connection, project.id, "dogs", "s3://dogs/2024")
        return import_tasks(connection, storage, ["2024/rex.jpg"])[0]


@pytest.fixture
def send(catalog):
    """Deliver an event of somebody who may write to every project, or to some."""

    def deliver(body: object, *, writable=None) -> Received:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        may_write = (lambda project_id: True) if writable is None else writable.__contains__
        return receive(catalog, raw, may_write=may_write)

    return deliver


@pytest.fixture
def saved(catalog):
    def read():
        with catalog.read() as connection:
            return annotations.page(connection)

    return read


@pytest.fixture
def kinds(catalog):
    """What the outbox holds of the first project."""

    def read():
        with catalog.read() as connection:
            return [event.kind for event in events.after(connection, 1, 0)]

    return read


def event(action: str, task_id: int, *, number: object = 17, **values: object) -> dict:
    """A delivery as Label Studio makes it, cut down to what matters and some of what does not."""
    annotation = {
        **{"id": number, "result": RESULT, "task": task_id, "completed_by": 1},
        **{"was_cancelled": False, "ground_truth": False, "lead_time": 37.13},
        **{"created_at": at(1), "updated_at": at(1), "prediction": {}, "result_count": 0},
        **values,
    }
    return {
        "action": action,
        "annotation": annotation,
        "task": {"id": task_id, "data": {"image": "s3://photos/2024/a.jpg"}, "meta": {}},
        "project": {"id": 99, "title": "Theirs"},
    }


def created(task_id: int, **values: object) -> dict:
    return event("ANNOTATION_CREATED", task_id, **values)


def updated(task_id: int, **values: object) -> dict:
    return event("ANNOTATION_UPDATED", task_id, **values)


def deleted(*numbers: object) -> dict:
    return {"action": "ANNOTATIONS_DELETED", "annotations": [{"id": n} for n in numbers]}


def at(minute: int) -> str:
    return f"2024-05-01T12:{minute:02}:00.123456Z"


def test_a_creation_an_update_and_a_deletion(send, saved, kinds, task_ids, catalog):
    assert send(created(task_ids[0])) == CREATED
    (made,) = saved()
    assert (made.task_id, json.loads(made.result)) == (task_ids[0], RESULT)
    assert (made.completed_by, made.was_cancelled, made.lead_time) == ("1", False, 37.13)
    moment = datetime(2024, 5, 1, 12, 1, 0, 123456, tzinfo=UTC)
    assert (made.created_at, made.updated_at) == (moment, moment)

    assert send(updated(task_ids[0], result=OTHER, updated_at=at(2))) == UPDATED
    (changed,) = saved()
    assert (changed.id, json.loads(changed.result)) == (made.id, OTHER)
    assert changed.updated_at == moment.replace(minute=2)
    with catalog.read() as connection:
        assert tasks.get(connection, task_ids[0]).task.total_annotations == 1

    assert send(deleted(17)) == DELETED
    assert saved() == []
    assert kinds() == [EventKind.CREATED, EventKind.UPDATED, EventKind.DELETED]


@pytest.mark.parametrize("again", [created, updated])
def test_a_delivery_that_comes_again_changes_nothing(send, saved, kinds, task_ids, again):
    send(created(task_ids[0]))
    before = saved()

    assert send(again(task_ids[0])) == IGNORED
    assert saved() == before
    assert kinds() == [EventKind.CREATED]


def test_an_update_of_what_is_unknown_creates(send, saved, task_ids):
    assert send(updated(task_ids[0], result=OTHER)) == CREATED
    assert json.loads(saved()[0].result) == OTHER


def test_a_creation_of_what_is_known_updates(send, saved, task_ids):
    send(created(task_ids[0]))

    assert send(created(task_ids[0], was_cancelled=True)) == UPDATED
    assert [each.was_cancelled for each in saved()] == [True]


def test_what_comes_late_does_not_undo_what_is_newer(send, saved, kinds, task_ids):
    send(created(task_ids[0], updated_at=at(2)))

    assert send(updated(task_ids[0], result=OTHER, updated_at=at(1))) == IGNORED
    assert json.loads(saved()[0].result) == RESULT


def test_an_update_with_nothing_new_is_no_event_and_still_the_latest(send, saved, kinds, task_ids):
    send(created(task_ids[0], updated_at=at(1)))

    assert send(updated(task_ids[0], updated_at=at(3))) == IGNORED
    assert send(updated(task_ids[0], result=OTHER, updated_at=at(2))) == IGNORED
    assert kinds() == [EventKind.CREATED]
    assert json.loads(saved()[0].result) == RESULT


def test_equal_results_may_be_written_otherwise(send, catalog, task_ids):
    """PostgreSQL orders keys its own way, and nobody has changed anything."""
    with catalog.begin() as connection:
        row = AnnotationRow('[{"b": 1.0,  "a": [1e2]}]')
        source_annotations.save(connection, "17", task_ids[0], row)

    again = {"id": 17, "task": task_ids[0], "result": [{"a": [100.0], "b": 1.0}]}
    assert send({"action": "ANNOTATION_UPDATED", "annotation": again}) == IGNORED


def test_a_deletion_of_what_is_unknown_is_fine(send, task_ids):
    send(created(task_ids[0]))

    assert send(deleted(17, 18, 17)) == Received(deleted=1, ignored=1)
    assert send(deleted(17)) == IGNORED


@pytest.mark.parametrize("again", [created, updated])
@pytest.mark.parametrize("moment", [AT_FIRST, "2024-05-01T12:00:00Z", "2999-01-01T00:00:00Z", None])
def test_what_the_tool_deleted_stays_deleted(send, saved, kinds, task_ids, again, moment):
    """Whatever comes late was said before: tools do not give an id twice."""
    send(created(task_ids[0]))
    send(deleted(17))

    assert send(again(task_ids[0], result=OTHER, updated_at=moment)) == IGNORED
    assert send(deleted(17)) == IGNORED
    assert saved() == []
    assert kinds() == [EventKind.CREATED, EventKind.DELETED]


def test_what_was_deleted_comes_late_among_others(send, saved, task_ids):
    send(created(task_ids[0], number=1))
    send(deleted(1))
    bodies = [created(task_ids[0], number=n)["annotation"] for n in (1, 2)]

    done = send({"action": "ANNOTATIONS_CREATED", "annotations": bodies})
    assert done == Received(created=1, ignored=1)
    assert len(saved()) == 1


def test_what_is_deleted_in_one_project_may_be_made_in_another(send, saved, task_ids, dog_id):
    send(created(task_ids[0]))
    send(deleted(17))

    assert send(created(dog_id)) == CREATED
    assert [each.task_id for each in saved()] == [dog_id]


def test_a_deletion_that_comes_before_the_creation_deletes_nothing(send, saved, task_ids):
    """It names no task, so nobody knows of which project; the annotation is there to be seen."""
    assert send(deleted(17)) == IGNORED

    assert send(created(task_ids[0])) == CREATED
    assert send(deleted(17)) == DELETED
    assert saved() == []


def test_what_was_deleted_here_comes_back_only_if_it_changes(send, saved, catalog, task_ids):
    """The tool still has it: somebody who goes on labeling there loses nothing."""
    send(created(task_ids[0]))
    with catalog.begin() as connection:
        annotations.delete(connection, saved()[0].id)

    for moment in (AT_FIRST, at(2), None):
        assert send(updated(task_ids[0], result=OTHER, updated_at=moment)) == IGNORED
    assert saved() == []
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    assert send(updated(task_ids[0], result=OTHER, updated_at=tomorrow)) == CREATED
    assert json.loads(saved()[0].result) == OTHER
    assert send(deleted(17)) == DELETED
    assert send(updated(task_ids[0], updated_at="2999-01-01T00:00:00Z")) == IGNORED


def test_what_was_deleted_here_is_not_newer_by_a_clock_that_is_ahead(
    send, saved, catalog, task_ids
):
    send(created(task_ids[0], updated_at="2999-01-01T00:00:00Z"))
    with catalog.begin() as connection:
        annotations.delete(connection, saved()[0].id)

    assert send(updated(task_ids[0], updated_at="2999-01-01T00:00:00Z")) == IGNORED


def test_what_went_with_its_task_does_not_come_back(send, saved, catalog, task_ids):
    send(created(task_ids[0]))
    with catalog.begin() as connection:
        tasks.delete(connection, task_ids[:1])

    with pytest.raises(NotFound):
        send(created(task_ids[0]))
    assert saved() == []


def test_many_annotations_in_one_delivery(send, saved, task_ids):
    """Label Studio calls the list "annotation" when it creates many, and sends their tasks."""
    one, two = created(task_ids[0], number=1), created(task_ids[1], number="b")
    body = {
        "action": "ANNOTATIONS_CREATED",
        "annotation": [one["annotation"], two["annotation"]],
        "task": [one["task"], two["task"]],
    }

    assert send(body) == Received(created=2)
    assert [each.task_id for each in saved()] == task_ids
    assert send(deleted("1", "b")) == Received(deleted=2)


def test_a_delivery_is_taken_as_a_whole_or_not(send, saved, task_ids):
    bodies = [created(task_ids[0], number=1)["annotation"], created(99, number=2)["annotation"]]

    with pytest.raises(NotFound):
        send({"action": "ANNOTATIONS_CREATED", "annotations": bodies})
    assert saved() == []


@pytest.mark.parametrize("meta", [None, [], {"labelport_task": "1"}, {"labelport_task": 1.5}])
def test_a_task_is_known_by_its_id(send, saved, task_ids, meta):
    body = created(task_ids[0])
    body["task"]["meta"] = meta

    assert send(body) == CREATED
    assert saved()[0].task_id == task_ids[0]


def test_a_task_may_name_ours_in_its_meta(send, saved, task_ids):
    """For tools that number tasks their own way; another task's meta says nothing of this one."""
    body = created(5001)
    body["task"] = [
        {"id": 5001, "meta": {"labelport_task": task_ids[1]}},
        {"id": 5002, "meta": {"labelport_task": task_ids[0]}},
    ]

    assert send(body) == CREATED
    assert saved()[0].task_id == task_ids[1]


def test_the_task_beside_an_annotation_is_its_task(send, saved, task_ids):
    assert send(created(task_ids[1], task=None)) == CREATED
    assert saved()[0].task_id == task_ids[1]


def test_what_is_not_ones_own_looks_as_if_it_were_not_there(send, saved, task_ids, dog_id):
    """Whatever project the delivery says it is of: ours is the task's."""
    messages = []
    for task_id in (task_ids[0], 9999):
        body = created(task_id)
        body["project"]["id"] = 2
        with pytest.raises(NotFound) as caught:
            send(body, writable={2})
        messages.append(str(caught.value).replace(str(task_id), "N", 1))

    assert messages[0] == messages[1]
    assert saved() == []
    assert send(created(dog_id), writable={2}) == CREATED


def test_only_ones_own_is_deleted(send, saved, task_ids, dog_id):
    """Two tools may give the same id; the caller's projects tell which is meant."""
    send(created(task_ids[0]))
    send(created(dog_id))

    assert send(deleted(17), writable={2}) == DELETED
    assert [each.task_id for each in saved()] == [task_ids[0]]
    assert send(deleted(17), writable={2}) == IGNORED


def test_a_deletion_that_could_mean_two_is_refused(send, saved, task_ids, dog_id):
    send(created(task_ids[0]))
    send(created(dog_id))

    with pytest.raises(FormatError, match="several projects"):
        send(deleted(17))
    assert len(saved()) == 2


def test_an_annotation_stays_with_its_task(send, saved, task_ids):
    send(created(task_ids[0]))

    with pytest.raises(FormatError, match="of another task"):
        send(updated(task_ids[1], updated_at=at(2)))
    assert [each.task_id for each in saved()] == [task_ids[0]]


def test_what_was_changed_here_since_is_kept(send, saved, catalog, task_ids):
    send(created(task_ids[0]))
    with catalog.begin() as connection:
        annotations.update(connection, saved()[0].id, completed_by="ann@example.com")

    assert send(updated(task_ids[0], result=OTHER, updated_at=at(2))) == IGNORED
    assert saved()[0].completed_by == "ann@example.com"


@pytest.mark.parametrize("action", ["TASKS_CREATED", "PROJECT_UPDATED", "", "annotation_created"])
def test_what_is_not_about_annotations_is_ignored(send, saved, task_ids, action):
    assert send(event(action, task_ids[0])) == IGNORED
    assert saved() == []


BAD = {
    "nothing": (b"", "invalid JSON"),
    "no JSON": (b"{", "invalid JSON"),
    "a list": (b"[]", "object"),
    "no action": (b"{}", "action"),
    "an odd action": (b'{"action": 1}', "action"),
    "an action in another encoding": (b'{"action": "\xff"}', "not UTF-8"),
    "the action alone": (b'{"action": "ANNOTATION_CREATED"}', "without annotation"),
    "no annotation": (b'{"action": "ANNOTATION_CREATED", "annotation": null}', "without"),
    "nothing deleted": (b'{"action": "ANNOTATIONS_DELETED", "annotations": []}', "without"),
    "deep": (b'{"action": "X", "annotation": ' + b"[" * 99_999, "nested"),
}


@pytest.mark.parametrize(("body", "words"), BAD.values(), ids=BAD)
def test_a_body_that_is_none_is_refused(send, task_ids, body, words):
    with pytest.raises(FormatError, match=words) as caught:
        send(body)
    assert caught.value.remedy


WRONG = {
    "no id": ({"id": None}, "id"),
    "an id that is a list": ({"id": []}, "id"),
    "an empty id": ({"id": ""}, "id"),
    "an endless id": ({"id": "x" * 201}, "id"),
    "an id with NUL": ({"id": "a\0"}, "u0000"),
    "a result that is no list": ({"result": {}}, "not a list"),
    "a result with NUL": ({"result": ["\0"]}, "u0000"),
    "a number too large": ({"result": [10**400]}, "too large"),
    "a task by name": ({"task": "one"}, "task"),
    "a task beyond numbers": ({"task": 2**70}, "task"),
    "a time that is none": ({"updated_at": "yesterday"}, "updated_at"),
    "half of a character": ({"result": ["\ud800"]}, "surrogate"),
    "deep": ({"result": json.loads("[" * 600 + "]" * 600)}, "nested"),
}


@pytest.mark.parametrize(("values", "words"), WRONG.values(), ids=WRONG)
def test_what_a_file_may_not_hold_a_delivery_may_not(send, saved, task_ids, values, words):
    with pytest.raises(FormatError, match=words):
        send(created(task_ids[0], **values))
    assert saved() == []


def test_a_result_that_stands_twice_is_refused(send, task_ids):
    body = f'{{"id": 1, "task": {task_ids[0]}, "result": [1], "result": []}}'

    with pytest.raises(FormatError, match="twice"):
        send(f'{{"action": "ANNOTATION_CREATED", "annotation": {body}}}'.encode())


def test_an_annotation_without_any_task_is_refused(send, task_ids):
    body = created(task_ids[0])["annotation"] | {"task": None}

    with pytest.raises(FormatError, match="without"):
        send({"action": "ANNOTATION_CREATED", "annotation": body})


def test_deliveries_at_once_make_one_annotation(send, saved, kinds, task_ids):
    done: list[Received] = []
    threads = [
        threading.Thread(target=lambda: done.append(send(created(task_ids[0])))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(done) == [IGNORED] * 7 + [CREATED]
    assert len(saved()) == 1
    assert kinds() == [EventKind.CREATED]


def test_a_deletion_and_late_deliveries_at_once_leave_nothing(send, saved, kinds, task_ids):
    send(created(task_ids[0]))
    bodies = [created(task_ids[0]), updated(task_ids[0], updated_at=at(0)), deleted(17)] * 3
    threads = [threading.Thread(target=send, args=[body]) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert saved() == []
    assert kinds() == [EventKind.CREATED, EventKind.DELETED]
