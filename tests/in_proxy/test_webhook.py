"""The webhook: labeling tools tell of annotations, as managers of the tasks' projects."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from labelport.catalog import Catalog, events, users
from labelport.model import EventKind, Role
from labelport_proxy import bodies
from proxies import Answer, Client, Running, Somebody, project, somebody, task
from served import Root, served, told, verdict

PATH = "/webhooks/annotations"
RESULT = [{"from_name": "label", "value": {"choices": ["cat"]}}]


class Site(NamedTuple):
    catalog: Catalog
    running: Running
    tool: Somebody  #: manager of cats
    cats: int
    dogs: int

    def task(self) -> int:
        """A new task of cats."""
        return task(self.catalog, self.cats, {"image": "file://cats/a.jpg"})

    def send(self, body: object, client: Client | None = None) -> Answer:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        return (client or self.running.as_user(self.tool.secret)).send("POST", PATH, headers, raw)

    def kinds(self, task_id: int) -> list[EventKind]:
        """What the outbox holds of a task."""
        with self.catalog.read() as connection:
            found = events.after(connection, self.cats, 0)
        return [event.kind for event in found if event.task_id == task_id]


@pytest.fixture(scope="module")
def site(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("webhook")
    with served(sqlite_template, folder, Root(folder)) as (catalog, running):
        cats, dogs = project(catalog, "cats"), project(catalog, "dogs")
        tool = somebody(catalog, "tool@example.org", cats, role=Role.MANAGER)
        yield Site(catalog, running, tool, cats, dogs)


def told_of(action: str, task_id: int, minute: int = 1, **changes: Any) -> dict[str, Any]:
    """A delivery; its annotation has the task's id, so that none is of two tasks."""
    annotation = {"id": task_id, "task": task_id, "result": RESULT, **changes}
    annotation["updated_at"] = f"2024-05-01T12:{minute:02}:00Z"
    return {"action": action, "annotation": annotation, "task": {"id": task_id}}


def deletion(number: int) -> dict[str, Any]:
    return {"action": "ANNOTATIONS_DELETED", "annotations": [{"id": number}]}


def counts(answer: Answer) -> dict[str, int]:
    assert answer.status == 200
    assert answer.headers["cache-control"] == "no-store"
    found: dict[str, int] = json.loads(answer.body)
    assert sorted(found) == ["created", "deleted", "ignored", "updated"]
    return {name: count for name, count in found.items() if count}


def test_a_managers_tool_tells_of_annotations(site):
    number = site.task()

    assert counts(site.send(told_of("ANNOTATION_CREATED", number))) == {"created": 1}
    changed = told_of("ANNOTATION_UPDATED", number, minute=2, result=[])
    assert counts(site.send(changed)) == {"updated": 1}
    assert counts(site.send(deletion(number))) == {"deleted": 1}
    assert site.kinds(number) == [EventKind.CREATED, EventKind.UPDATED, EventKind.DELETED]


def test_a_delivery_that_comes_again_changes_nothing(site):
    number = site.task()
    deliveries = [
        told_of("ANNOTATION_CREATED", number),
        told_of("ANNOTATION_UPDATED", number, minute=2, result=[]),
    ]
    for delivery in deliveries:
        site.send(delivery)

    for delivery in [*deliveries, *deliveries]:
        assert counts(site.send(delivery)) == {"ignored": 1}
    assert site.kinds(number) == [EventKind.CREATED, EventKind.UPDATED]
    assert counts(site.send(deletion(number))) == {"deleted": 1}
    assert counts(site.send(deletion(number))) == {"ignored": 1}


def test_deliveries_at_once_make_one_annotation(site):
    number = site.task()
    body = told_of("ANNOTATION_CREATED", number)
    with ThreadPoolExecutor(8) as pool:
        found = [counts(answer) for answer in pool.map(site.send, [body] * 8)]

    assert sorted(found, key=str) == [{"created": 1}, *[{"ignored": 1}] * 7]
    assert site.kinds(number) == [EventKind.CREATED]


def test_what_is_not_about_annotations_is_ignored(site):
    assert counts(site.send({"action": "TASKS_CREATED"})) == {"ignored": 1}


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
def test_deliveries_are_posted(site, method):
    answer = site.running.as_user(site.tool.secret).send(method, PATH)

    assert answer.status == 405
    assert answer.headers["allow"] == "POST"


def test_whoever_is_no_manager_sees_no_task(site):
    """Whether it is there, they may label it, or it is another project's."""
    number = site.task()
    missing = told(site.send(told_of("ANNOTATION_CREATED", 10**6)))
    assert missing[0] == 404
    for projects, role in [
        ((), Role.ANNOTATOR),
        ((site.cats,), Role.ANNOTATOR),
        ((site.dogs,), Role.MANAGER),
    ]:
        user = somebody(site.catalog, f"{time.time_ns()}@example.org", *projects, role=role)
        client = site.running.as_user(user.secret)
        for action in ("ANNOTATION_CREATED", "ANNOTATION_UPDATED"):
            assert told(site.send(told_of(action, number), client)) == missing
    assert site.kinds(number) == []


def test_whoever_is_no_manager_deletes_nothing(site):
    number = site.task()
    site.send(told_of("ANNOTATION_CREATED", number))
    annotator = somebody(site.catalog, f"{time.time_ns()}@example.org", site.cats)
    other = somebody(site.catalog, f"{time.time_ns()}@example.org", site.dogs, role=Role.MANAGER)

    assert site.send(deletion(number), site.running.as_user(annotator.secret)).status == 404
    answer = site.send(deletion(number), site.running.as_user(other.secret))
    assert counts(answer) == {"ignored": 1}
    assert site.kinds(number) == [EventKind.CREATED]


@pytest.mark.parametrize("role", [Role.ANNOTATOR, None])
def test_who_ceases_to_be_a_manager_writes_no_more(site, role):
    boss = somebody(site.catalog, f"{time.time_ns()}@example.org", site.cats, role=Role.MANAGER)
    client = site.running.as_user(boss.secret)
    number = site.task()
    assert counts(site.send(told_of("ANNOTATION_CREATED", number), client)) == {"created": 1}
    with site.catalog.begin() as connection:
        if role:
            users.join(connection, boss.id, site.cats, role)
        else:
            users.leave(connection, boss.id, site.cats)

    assert site.send(told_of("ANNOTATION_UPDATED", number, 2, result=[]), client).status == 404
    assert site.kinds(number) == [EventKind.CREATED]


def test_a_cookie_writes_nothing(site):
    """A browser would send it for any page; a header it sends for none of another origin."""
    session = site.running.as_user(site.tool.secret).send("POST", "/session")
    cookie = session.headers["set-cookie"].partition(";")[0]
    number = site.task()

    for headers in ({"Cookie": cookie}, {"Cookie": cookie, "Authorization": "Bearer x"}, {}):
        client = Client(site.running.url, headers)
        answer = site.send(told_of("ANNOTATION_CREATED", number), client)
        assert verdict(answer) == (401, "unauthenticated")
    assert site.kinds(number) == []


MALFORMED: dict[str, object] = {
    "empty": b"",
    "no JSON": b"{",
    "not UTF-8": b'{"action": "\xff"}',
    "a list": [],
    "no action": {},
    "no annotation": {"action": "ANNOTATION_CREATED"},
    "a form": b"action=ANNOTATION_CREATED",
    "nested": b'{"action": "ANNOTATION_CREATED", "annotation": ' + b"[" * 99_999,
    "nested where nobody looks": b'{"action": "TASKS_CREATED", "x": ' + b"[" * 99_999,
    "nested and closed": b'{"action":"ANNOTATION_CREATED","annotation":{"id":1,"task":1,"result":'
    + b"[" * 5_000
    + b"]" * 5_000
    + b"}}",
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
def test_what_is_no_delivery_is_refused(site, body):
    assert verdict(site.send(body)) == (422, "unreadable")


WRONG = {
    "id": {"id": None},
    "result": {"result": {}},
    "result with NUL": {"result": ["\0"]},
    "task by name": {"task": "one"},
    "task beyond numbers": {"task": 2**70},
    "updated_at": {"updated_at": "yesterday"},
    "half of a character": {"result": ["\ud800"]},
}


@pytest.mark.parametrize("values", WRONG.values(), ids=WRONG)
def test_a_bad_annotation_is_refused(site, values):
    number = site.task()
    body = told_of("ANNOTATION_CREATED", number)
    body["annotation"] |= values

    assert verdict(site.send(body)) == (422, "unreadable")
    assert site.kinds(number) == []


def test_a_body_that_is_too_large_is_refused(site):
    limit = 32 << 20
    number = site.task()
    body = json.dumps(told_of("ANNOTATION_CREATED", number)).encode()

    assert verdict(site.send(body.ljust(limit + 1))) == (413, "too_large")
    assert site.kinds(number) == []
    assert counts(site.send(body.ljust(limit))) == {"created": 1}


def test_nobodys_body_is_not_even_read(site):
    """The answer comes while the body is still to be sent."""
    headers = {"Content-Length": str(1 << 30)}
    answer = Client(site.running.url).send("POST", PATH, headers)

    assert verdict(answer) == (401, "unauthenticated")


def test_the_body_of_whoever_manages_nothing_is_not_read_either(site):
    annotator = somebody(site.catalog, f"{time.time_ns()}@example.org", site.cats)
    headers = {"Content-Length": str(1 << 30)}
    answer = site.running.as_user(annotator.secret).send("POST", PATH, headers)

    assert verdict(answer) == (404, "not_found")


@contextmanager
def held_delivery(running: Running, secret: str, sent: int) -> Iterator[None]:
    """A delivery that stands still once the proxy has read *sent* bytes, or nearly so."""
    place = urlsplit(running.url)
    lines = [f"POST {PATH} HTTP/1.1", "Host: proxy", f"Authorization: Token {secret}"]
    lines.append(f"Content-Length: {32 << 20}")
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 << 10)
        connection.settimeout(30)
        connection.connect((place.hostname, place.port))
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + b" " * sent)
        yield


def test_deliveries_of_one_user_at_once_are_counted(sqlite_template, tmp_path):
    """As streams are: each is held in memory."""
    with served(sqlite_template, tmp_path, Root(tmp_path), streams_per_user=1) as (
        catalog,
        running,
    ):
        cats = project(catalog, "cats")
        tool, other = (
            somebody(catalog, f"{name}@example.org", cats, role=Role.MANAGER) for name in "ab"
        )
        clients = [running.as_user(user.secret) for user in (tool, other)]
        body = json.dumps({"action": "TASKS_CREATED"}).encode()
        with held_delivery(running, tool.secret, 4 << 20):
            answers = [client.send("POST", PATH, body=body) for client in clients]
            assert verdict(answers[0]) == (429, "too_many_requests")
            assert counts(answers[1]) == {"ignored": 1}

        until = time.monotonic() + 10
        while clients[0].send("POST", PATH, body=body).status == 429:
            assert time.monotonic() < until


def test_large_deliveries_wait_for_each_other_and_small_ones_do_not(site, monkeypatch):
    """Who waits longer than a body may take is not too slow for that."""
    number, other = site.task(), site.task()
    large = json.dumps(told_of("ANNOTATION_CREATED", number)).encode().ljust(1 << 20)
    with ThreadPoolExecutor(1) as pool:
        with ExitStack() as held:
            for _ in range(4):
                held.enter_context(held_delivery(site.running, site.tool.secret, 4 << 20))
            monkeypatch.setattr(bodies, "_BODY_SECONDS", 1.0)
            waiting = pool.submit(site.send, large)

            assert counts(site.send(told_of("ANNOTATION_CREATED", other))) == {"created": 1}
            with pytest.raises(TimeoutError):
                waiting.result(1.5)

        assert counts(waiting.result()) == {"created": 1}


def test_a_large_delivery_does_not_wait_for_ever(site):
    """The tool is told to come again, for others are slow."""
    number = site.task()
    large = json.dumps(told_of("ANNOTATION_CREATED", number)).encode().ljust(1 << 20)
    with ExitStack() as held:
        for _ in range(4):
            held.enter_context(held_delivery(site.running, site.tool.secret, 4 << 20))
        answer = site.send(large)

    assert verdict(answer) == (503, "overloaded")
    assert answer.headers["retry-after"] == "5"
    assert counts(site.send(large)) == {"created": 1}
