"""Who may have which object, and that nobody else learns anything: no store is even asked."""

from __future__ import annotations

import itertools
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import pytest

from catalogs import import_tasks
from labelport.catalog import Catalog, storages, tokens, users
from labelport.model import Role, TokenKind
from labelport.resolving import Kind
from proxies import Answer, Client, Running, Somebody, project, proxy, somebody, storage, task
from served import Root, served, told, verdict

OK = (200, "")
UNKNOWN = (401, "unauthenticated")
FORBIDDEN = (403, "forbidden")
NOT_FOUND = (404, "not_found")
NO_STORAGE = (404, "no_storage")
NO_OBJECT = (404, "object_not_found")
BENT = (400, "invalid_key")

#: What a role gets: what its project's members may have, 404 for all, or 401 for all.
MEMBERS = ("annotator", "manager", "annotator by cookie")
STRANGERS = ("stranger", "member of another project", "removed member")
NOBODIES = ("anonymous", "inactive", "revoked token", "expired token", "expired session")


class Wanted(NamedTuple):
    """A URI, whose task it is asked of, and what members get for it."""

    task: str
    uri: str
    of_task: tuple[int, str]
    of_project: tuple[int, str]
    of_task_any: tuple[int, str]  #: where the storage serves any key
    of_project_any: tuple[int, str]


def never(task: str, uri: str) -> Wanted:
    return Wanted(task, uri, FORBIDDEN, FORBIDDEN, FORBIDDEN, FORBIDDEN)


def if_any(task: str, uri: str, found: tuple[int, str]) -> Wanted:
    """Only where the storage serves any key."""
    return Wanted(task, uri, FORBIDDEN, FORBIDDEN, found, found)


def uncovered(task: str, uri: str) -> Wanted:
    """The task refers to it, and no storage of the project has it."""
    return Wanted(task, uri, NO_STORAGE, FORBIDDEN, NO_STORAGE, FORBIDDEN)


OBJECTS = {
    "of the task": Wanted("a", "file://cats/img/a.jpg", OK, OK, OK, OK),
    "of another task": Wanted("a", "file://cats/img/b.jpg", FORBIDDEN, OK, OK, OK),
    "of another project": never("a", "file://dogs/img/rex.jpg"),
    "of another project, same bucket": never("a", "file://cats/dogs/rex.jpg"),
    "of another project, referred to": uncovered("far", "file://dogs/img/rex.jpg"),
    "neighbour prefix": never("a", "file://cats/img2k/a.jpg"),
    "neighbour prefix, referred to": uncovered("far", "file://cats/img2k/a.jpg"),
    "unreferenced": if_any("a", "file://cats/img/new.jpg", OK),
    "outside the prefix": never("a", "file://cats/secret.jpg"),
    "outside the prefix, referred to": uncovered("far", "file://cats/secret.jpg"),
    "other bucket": never("a", "file://birds/img/a.jpg"),
    "of an export storage": never("a", "file://cats/out/1.json"),
    "other scheme": never("a", "s3://cats/img/a.jpg"),
    "web address": never("a", "http://cats/img/a.jpg"),
    "no bucket": never("a", "file:///img/a.jpg"),
    "no key": never("a", "file://cats"),
    "the folder": if_any("a", "file://cats/img/", BENT),
    "scheme in capitals": Wanted("a", "FILE://cats/img/a.jpg", FORBIDDEN, OK, OK, OK),
    "bucket in capitals": never("a", "file://Cats/img/a.jpg"),
    "longer": if_any("a", "file://cats/img/a.jpg2", NO_OBJECT),
    "shorter": if_any("a", "file://cats/img/a.jp", NO_OBJECT),
    "query": if_any("a", "file://cats/img/a.jpg?x", NO_OBJECT),
    "fragment": if_any("a", "file://cats/img/a.jpg#x", NO_OBJECT),
    "dots": if_any("a", "file://cats/img/../secret.jpg", BENT),
    "dots first": never("a", "file://cats/../dogs/img/rex.jpg"),
    "dots as bucket": never("a", "file://../dogs/img/rex.jpg"),
    "dots to itself": if_any("a", "file://cats/img/./a.jpg", BENT),
    "dots, referred to": Wanted(
        "bent", "file://cats/img/../secret.jpg", BENT, FORBIDDEN, BENT, BENT
    ),
    "encoded dots": if_any("a", "file://cats/img/%2e%2e/secret.jpg", NO_OBJECT),
    "encoded slash": if_any("a", "file://cats/img/..%2fsecret.jpg", NO_OBJECT),
    "twice encoded dots": if_any("a", "file://cats/img/%252e%252e/secret.jpg", NO_OBJECT),
    "backslash": never("a", r"file://cats/img/..\secret.jpg"),
    "backslash, referred to": Wanted(
        "bent", r"file://cats/img/..\secret.jpg", NO_OBJECT, FORBIDDEN, NO_OBJECT, FORBIDDEN
    ),
    "two slashes": if_any("a", "file://cats/img//a.jpg", BENT),
    "absolute": never("a", "file://cats//etc/passwd"),
    "symbolic link": if_any("a", "file://cats/img/link.jpg", NO_OBJECT),
    "missing task": Wanted(
        "missing", "file://cats/img/a.jpg", NOT_FOUND, NOT_FOUND, NOT_FOUND, NOT_FOUND
    ),
    "task zero": Wanted(
        "zero", "file://cats/img/a.jpg", NOT_FOUND, NOT_FOUND, NOT_FOUND, NOT_FOUND
    ),
    "huge task id": Wanted(
        "huge", "file://cats/img/a.jpg", NOT_FOUND, NOT_FOUND, NOT_FOUND, NOT_FOUND
    ),
    "task of a removed storage": uncovered("orphan", "file://gone/x.jpg"),
}
#: Refused or not, it exists.
THERE = (
    *("cats/img/a.jpg", "cats/img/b.jpg", "cats/img/new.jpg", "cats/img2k/a.jpg"),
    *("cats/dogs/rex.jpg", "cats/out/1.json", "cats/secret.jpg", "cats/elsewhere/a.jpg"),
    *("dogs/img/rex.jpg", "birds/img/a.jpg", "Cats/img/a.jpg", "gone/x.jpg"),
)
NUMBERS = {"missing": 10**6, "zero": 0, "huge": 2**63}


class World(NamedTuple):
    """Projects, and people of every kind."""

    any_key: bool
    catalog: Catalog
    running: Running
    root: Root
    cats: int
    tasks: Mapping[str, int]
    clients: Mapping[str, Client]

    def expected(self, wanted: Wanted, kind: str) -> tuple[int, str]:
        of_task, of_project = wanted[4:] if self.any_key else wanted[2:4]
        return of_task if kind == "tasks" else of_project

    def ask_for_all(self, role: str, kind: Kind) -> dict[str, Answer]:
        client = self.clients[role]
        return {
            name: client.get(kind, self.number(wanted, kind), wanted.uri)
            for name, wanted in OBJECTS.items()
        }

    def number(self, wanted: Wanted, kind: str) -> int:
        if wanted.task in NUMBERS:
            return NUMBERS[wanted.task]
        return self.tasks[wanted.task] if kind == "tasks" else self.cats


@pytest.fixture(scope="module", params=[False, True], ids=["referred", "any-key"])
def world(
    request: pytest.FixtureRequest,
    sqlite_template: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("access")
    root = Root(folder)
    for place in THERE:
        bucket, _, key = place.partition("/")
        root.put(bucket, key)
    (folder / "cats/img/link.jpg").symlink_to(folder / "cats/secret.jpg")
    with served(sqlite_template, folder, root, streams_per_user=0) as (catalog, running):
        cats, dogs = project(catalog, "cats"), project(catalog, "dogs")
        yield World(
            any_key=request.param,
            catalog=catalog,
            running=running,
            root=root,
            cats=cats,
            tasks=tasks_of(catalog, cats, dogs, any_key=request.param),
            clients=clients_of(catalog, running, cats, dogs),
        )


def tasks_of(catalog: Catalog, cats: int, dogs: int, *, any_key: bool) -> dict[str, int]:
    photos = storage(
        catalog, cats, "photos", "file://cats/img", use_blob_urls=True, serve_any_key=any_key
    )
    storage(catalog, cats, "labels", "file://cats/out", direction="export", serve_any_key=any_key)
    storage(catalog, dogs, "dogs", "file://dogs/img", serve_any_key=any_key)
    storage(catalog, dogs, "more dogs", "file://cats/dogs", serve_any_key=any_key)
    gone = storage(catalog, cats, "gone", "file://gone", serve_any_key=any_key)
    with catalog.begin() as connection:
        a, _ = import_tasks(connection, photos, ["img/a.jpg", "img/b.jpg"])
        (orphan,) = import_tasks(connection, gone, ["x.jpg"])
        storages.remove(connection, gone.id)
    for uri in ("file://dogs/img/rex.jpg", "file://cats/dogs/rex.jpg"):
        task(catalog, dogs, {"image": uri})
    far = [wanted.uri for wanted in OBJECTS.values() if wanted.task == "far"]
    bent = [wanted.uri for wanted in OBJECTS.values() if wanted.task == "bent"]
    return {"a": a, "orphan": orphan, "far": task(catalog, cats, far)} | {
        "bent": task(catalog, cats, {"text": bent})
    }


def clients_of(catalog: Catalog, running: Running, cats: int, dogs: int) -> dict[str, Client]:
    def new(name: str, *projects: int, role: Role = Role.ANNOTATOR) -> Somebody:
        return somebody(catalog, f"{name}@example.org", *projects, role=role)

    annotator, removed, inactive = new("ann", cats), new("gone", cats), new("off", cats)
    revoked = new("revoked", cats)
    with catalog.begin() as connection:
        users.leave(connection, removed.id, cats)
        users.set_active(connection, inactive.id, active=False)
        (token,) = tokens.list_of(connection, revoked.id)
        tokens.revoke(connection, token.id)

        def session(seconds: float) -> dict[str, str]:
            _, secret = tokens.create(
                connection, annotator.id, name="s", kind=TokenKind.SESSION, seconds=seconds
            )
            return {"Cookie": f"labelport_session={secret}"}

        _, expired = tokens.create(connection, annotator.id, name="old", seconds=0.001)
        cookie, expired_cookie = session(600), session(0.001)
    secrets = {
        "annotator": annotator.secret,
        "manager": new("boss", cats, role=Role.MANAGER).secret,
        "stranger": new("stranger").secret,
        "member of another project": new("dogs", dogs, role=Role.MANAGER).secret,
        "removed member": removed.secret,
        "inactive": inactive.secret,
        "revoked token": revoked.secret,
        "expired token": expired,
    }
    return {role: running.as_user(secret) for role, secret in secrets.items()} | {
        "annotator by cookie": Client(running.url, cookie),
        "anonymous": Client(running.url),
        "expired session": Client(running.url, expired_cookie),
    }


@pytest.mark.parametrize("kind", ["tasks", "projects"])
@pytest.mark.parametrize("wanted", OBJECTS.values(), ids=OBJECTS)
def test_members_get_what_is_theirs(world, wanted, kind):
    number, expected = world.number(wanted, kind), world.expected(wanted, kind)
    key = wanted.uri.partition("://")[2].partition("/")[2]
    for role in MEMBERS:
        world.root.asked.clear()
        answer = world.clients[role].get(kind, number, wanted.uri)

        assert (role, verdict(answer)) == (role, expected)
        assert world.root.asked == ([key] if expected in (OK, NO_OBJECT, BENT) else [])


@pytest.mark.parametrize("kind", ["tasks", "projects"])
@pytest.mark.parametrize("role", STRANGERS)
def test_strangers_are_told_the_same_of_what_is_there_and_what_is_not(world, role, kind):
    world.root.asked.clear()
    answers = world.ask_for_all(role, kind)
    missing = world.clients[role].get(kind, NUMBERS["missing"], "file://no/such")

    assert verdict(missing) == NOT_FOUND
    assert {name: told(answer) for name, answer in answers.items()} == dict.fromkeys(
        OBJECTS, told(missing)
    )
    assert world.root.asked == []


@pytest.mark.parametrize("role", NOBODIES)
def test_who_is_nobody_gets_nothing(world, role):
    world.root.asked.clear()
    answers = world.ask_for_all(role, "tasks") | world.ask_for_all(role, "projects")

    first = answers["of the task"]
    assert verdict(first) == UNKNOWN
    assert first.headers["www-authenticate"] == "Bearer"
    assert {name: told(answer) for name, answer in answers.items()} == dict.fromkeys(
        OBJECTS, told(first)
    )
    assert world.root.asked == []


def test_both_databases_decide_alike(catalog_url, tmp_path):
    root = Root(tmp_path / "root")
    root.put("cats", "a.jpg")
    uri = "file://cats/a.jpg"
    with Catalog(catalog_url) as catalog, proxy(Catalog(catalog_url), root) as running:
        cats = project(catalog, "cats")
        storage(catalog, cats, "photos", "file://cats")
        number = task(catalog, cats, {"image": uri})
        member, stranger = somebody(catalog, "a@x.org", cats), somebody(catalog, "b@x.org")
        client = running.as_user(member.secret)
        session = client.send("POST", "/session").headers["set-cookie"].partition(";")[0]
        by_cookie = Client(running.url, {"Cookie": session})

        assert verdict(client.get("tasks", number, uri)) == OK
        assert verdict(by_cookie.get("tasks", number, uri)) == OK
        assert verdict(client.get("tasks", 2**63 - 1, uri)) == NOT_FOUND
        assert verdict(client.get("projects", cats, uri)) == FORBIDDEN
        assert verdict(running.as_user(stranger.secret).get("tasks", number, uri)) == NOT_FOUND
        assert by_cookie.send("DELETE", "/session").status == 204
        assert verdict(by_cookie.get("tasks", number, uri)) == UNKNOWN


@pytest.mark.parametrize("kind", ["tasks", "projects"])
def test_a_refusal_does_not_tell_whether_an_object_exists(world, kind):
    number = world.number(OBJECTS["of the task"], kind)
    client = world.clients["annotator"]
    there, not_there, nowhere = (
        told(client.get(kind, number, uri))
        for uri in ("file://cats/img2k/a.jpg", "file://cats/img2k/none.jpg", "file://x/y")
    )

    assert there == not_there == nowhere
    assert there[0] == 403


def as_base64(uri: str) -> str:
    return urlsafe_b64encode(uri.encode()).decode()


SPELLINGS: Mapping[str, Callable[[str], str]] = {
    "padded": as_base64,
    "padding quoted": lambda uri: quote(as_base64(uri), safe=""),
    "unpadded": lambda uri: as_base64(uri).rstrip("="),
    "plain": lambda uri: quote(uri, safe=""),
    "plain, little quoted": lambda uri: quote(uri, safe="/:.\\"),
}


@pytest.mark.parametrize("spell", SPELLINGS.values(), ids=SPELLINGS)
def test_every_spelling_of_a_uri_is_the_same_uri(world, spell):
    def ask(wanted: Wanted) -> Answer:
        target = f"/tasks/{world.number(wanted, 'tasks')}/resolve/?fileuri={spell(wanted.uri)}"
        return world.clients["annotator"].send("GET", target)

    assert {name: verdict(ask(wanted)) for name, wanted in OBJECTS.items()} == {
        name: world.expected(wanted, "tasks") for name, wanted in OBJECTS.items()
    }


@pytest.mark.parametrize(
    "fileuri",
    [
        "file://cats/img/%2e%2e/secret.jpg",
        "file://cats/img/.%2E/secret.jpg",
        "file:%2f%2fcats%2fimg%2f..%2fsecret.jpg",
        "file://cats/img/%252e%252e/secret.jpg",
        "file://cats/img/%25252e%25252e/secret.jpg",
        "file://cats/img/%c0%ae%c0%ae/secret.jpg",
        "file://cats/img/..%2f..%2fdogs/img/rex.jpg",
        "file://cats/img/a.jpg%00",
        "file://cats/img/a.jpg%0d%0aX:%20y",
        "file://cats/img/a.jpg%7f",
    ],
)
def test_a_query_is_decoded_once_and_what_is_bent_is_refused(world, fileuri):
    """What was encoded more often is a key that holds a percent sign, and none of these is."""
    target = f"/projects/{world.cats}/resolve/?fileuri={fileuri}"

    answer = world.clients["manager"].send("GET", target)

    assert answer.status in (400, 404) if world.any_key else answer.status in (400, 403)


UNREADABLE = {
    "nothing": "",
    "no fileuri": "?uri=file://cats/img/a.jpg",
    "empty": "?fileuri=",
    "two": "?fileuri=file://cats/img/a.jpg&fileuri=file://cats/img/b.jpg",
    "no URI": "?fileuri=img/a.jpg",
    "base64 of no URI": f"?fileuri={as_base64('img/a.jpg')}",
    "base64 of other bytes": "?fileuri=_____w",
    "half of base64": "?fileuri=A",
    "control character": "?fileuri=file://cats/img/a%0a.jpg",
    "control character in base64": f"?fileuri={as_base64('file://cats/img/a' + chr(10))}",
    "NUL": "?fileuri=file://cats/img/a.jpg%00",
    "not UTF-8": "?fileuri=file://cats/img/%ff",
    "half a surrogate pair": "?fileuri=file://cats/img/%ed%a0%80",
    "endless": "?fileuri=file://cats/img/" + "a" * 17_000,
}


@pytest.mark.parametrize("query", UNREADABLE.values(), ids=UNREADABLE)
@pytest.mark.parametrize("role", ["annotator", "stranger", "anonymous"])
def test_what_cannot_be_read_is_refused_to_everybody_alike(world, role, query):
    world.root.asked.clear()
    answer = world.clients[role].send("GET", f"/tasks/{world.tasks['a']}/resolve/{query}")

    assert verdict(answer) == (400, "bad_request")
    assert world.root.asked == []


@pytest.mark.parametrize("number", ["9" * 30, "9" * 5_000, "-1", "1.0", "x", "0x1", "١"])
@pytest.mark.parametrize("kind", ["tasks", "projects"])
def test_what_is_no_id_is_nothing(world, kind, number):
    target = f"/{kind}/{quote(number)}/resolve/?fileuri=file://cats/img/a.jpg"
    answer = world.clients["annotator"].send("GET", target)

    assert verdict(answer) == NOT_FOUND


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_nothing_is_written_through_the_proxy(world, method):
    world.root.asked.clear()
    target = f"/tasks/{world.tasks['a']}/resolve/?fileuri=file://cats/img/a.jpg"
    answer = world.clients["manager"].send(method, target, body=b"x")

    assert verdict(answer) == (405, "method_not_allowed")
    assert world.root.asked == []


@pytest.mark.parametrize("method", ["HEAD", "GET"])
@pytest.mark.parametrize("role", ["annotator", "stranger", "anonymous"])
def test_a_head_is_refused_as_a_get_is(world, role, method):
    wanted = OBJECTS["outside the prefix"]
    target = f"/tasks/{world.tasks['a']}/resolve/?fileuri={wanted.uri}"
    answer = world.clients[role].send(method, target)

    assert answer.status == {"annotator": 403, "stranger": 404, "anonymous": 401}[role]
    assert bool(answer.body) == (method == "GET")


# What was decided is used again for `access_seconds`, and no longer.


class Revoking(NamedTuple):
    catalog: Catalog
    client: Client
    user: Somebody
    project_id: int
    storage_id: int
    task_id: int


REVOCATIONS: Mapping[str, tuple[Callable[[Revoking], object], int]] = {
    "token revoked": (lambda r: revoke_token(r), 401),
    "user deactivated": (lambda r: in_catalog(r, users.set_active, r.user.id, False), 401),
    "user removed": (lambda r: in_catalog(r, users.remove, r.user.id), 401),
    "membership ended": (lambda r: in_catalog(r, users.leave, r.user.id, r.project_id), 404),
    "storage removed": (lambda r: in_catalog(r, storages.remove, r.storage_id), 404),
    "storage moved": (
        lambda r: in_catalog(r, storages.update, r.storage_id, location="file://cats/elsewhere"),
        404,
    ),
    "task data changed": (lambda r: change_data(r), 403),
}


def in_catalog(r: Revoking, act: Callable[..., object], *arguments: object, **more: object) -> None:
    with r.catalog.begin() as connection:
        act(connection, *arguments, **more)


def revoke_token(r: Revoking) -> None:
    with r.catalog.begin() as connection:
        (token,) = tokens.list_of(connection, r.user.id)
        tokens.revoke(connection, token.id)


def change_data(r: Revoking) -> None:
    with r.catalog.begin() as connection:
        connection.exec_driver_sql("UPDATE tasks SET data = '{}' WHERE id = ?", (r.task_id,))


@pytest.fixture(params=[0.0, 0.3], ids=["at once", "remembered"])
def remembering(request, sqlite_template, tmp_path) -> Iterator[tuple[float, Revoking]]:
    """A proxy that remembers decisions for so many seconds, and what may be taken away."""
    root = Root(tmp_path / "root")
    root.put("cats", "a.jpg")
    changes = {"access_seconds": request.param}
    with served(sqlite_template, tmp_path, root, **changes) as (catalog, running):
        cats = project(catalog, "cats")
        photos = storage(catalog, cats, "photos", "file://cats")
        number = task(catalog, cats, {"image": "file://cats/a.jpg"})
        user = somebody(catalog, "ann@example.org", cats)
        client = running.as_user(user.secret)
        yield request.param, Revoking(catalog, client, user, cats, photos.id, number)


@pytest.mark.parametrize(("revoke", "status"), REVOCATIONS.values(), ids=REVOCATIONS)
def test_what_is_taken_away_is_gone_once_the_decision_is_forgotten(remembering, revoke, status):
    seconds, given = remembering

    def ask() -> int:
        return given.client.get("tasks", given.task_id, "file://cats/a.jpg").status

    assert ask() == 200
    revoke(given)
    until = time.monotonic() + seconds
    answers = []
    while time.monotonic() < until:
        answers.append(ask())

    assert ask() == status
    assert set(answers) <= {200, 401, 404, status}  # who asks and what for may be seen apart


def test_other_objects_do_not_make_a_decision_last_longer(remembering):
    """What was learned for one object serves the next one for the rest of its time only."""
    seconds, given = remembering
    in_catalog(given, storages.update, given.storage_id, serve_any_key=True)
    uris = (f"file://cats/{number}.jpg" for number in itertools.count())

    assert verdict(given.client.get("projects", given.project_id, next(uris))) == NO_OBJECT
    in_catalog(given, users.leave, given.user.id, given.project_id)
    until = time.monotonic() + seconds
    asked = []
    while time.monotonic() < until:
        asked.append(next(uris))
        given.client.get("projects", given.project_id, asked[-1])

    for uri in reversed([*asked, next(uris)]):
        assert verdict(given.client.get("projects", given.project_id, uri)) == NOT_FOUND


def test_a_refusal_is_forgotten_as_soon(remembering):
    """Who becomes a member need not wait longer than who ceases to be one."""
    seconds, given = remembering
    newcomer = somebody(given.catalog, "new@example.org")
    client = Client(given.client.url, {"Authorization": f"Token {newcomer.secret}"})

    def ask() -> int:
        return client.get("tasks", given.task_id, "file://cats/a.jpg").status

    assert ask() == 404
    in_catalog(given, users.join, newcomer.id, given.project_id, Role.ANNOTATOR)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        assert ask() in (404, 200)

    assert ask() == 200


def test_an_answer_that_was_cached_is_void_once_rights_change(remembering):
    """Its ETag is of the user's rights too: a browser that asks whether it still holds is told."""
    seconds, given = remembering
    uri = "file://cats/a.jpg"
    etag = given.client.get("tasks", given.task_id, uri).headers["etag"]
    again = {"If-None-Match": etag}
    assert given.client.get("tasks", given.task_id, uri, again).status == 304

    in_catalog(given, users.join, given.user.id, given.project_id, Role.MANAGER)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        given.client.get("tasks", given.task_id, uri, again)

    answer = given.client.get("tasks", given.task_id, uri, again)
    assert answer.status == 200
    assert answer.headers["etag"] != etag
