"""How storages are opened: by which connection, again when, and what is told if they cannot be."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import airflow_home
from buckets import Bucket, aws_connection
from labelport.catalog import Catalog, storages
from labelport.connections import open_store
from labelport.connections.lookup import find_or_none
from labelport.errors import ConfigurationError, StoreTimeout
from labelport.importing import import_storage
from labelport.model import Direction, Storage
from labelport.stores.memory import MemoryStore
from labelport_proxy.opening import Place, Stores
from proxies import Client, Running, project, somebody, storage
from served import served, verdict
from servers import S3Server

airflow_home.prepare()

MISCONFIGURED = (502, "storage_misconfigured")
WRONG_SECRET = "a-wrong-secret-that-nobody-may-read-00000"


class Site(NamedTuple):
    catalog: Catalog
    running: Running
    client: Client  #: of a member of cats
    cats: int
    folder: Path

    def storage(self, name: str, location: str, **more: Any) -> Storage:
        given = {"serve_any_key": True, "presign": False, **more}
        return storage(self.catalog, self.cats, name, location, **given)

    def change(self, changed: Storage, **more: Any) -> None:
        with self.catalog.begin() as connection:
            storages.update(connection, changed.id, **more)

    def ask(self, uri: str) -> tuple[int, str]:
        return verdict(self.client.get("projects", self.cats, uri))


@pytest.fixture(scope="module", autouse=True)
def airflow() -> None:
    """Loaded before a test looks at the log, which Airflow sets up as it likes."""
    assert find_or_none("nothing") is None


@pytest.fixture
def site(sqlite_template: Path, tmp_path: Path, caplog: Any) -> Iterator[Site]:
    """A proxy that opens storages as it does in production."""
    caplog.set_level(logging.DEBUG, "labelport_proxy")
    with served(sqlite_template, tmp_path) as (catalog, running):
        cats = project(catalog, "cats")
        client = running.as_user(somebody(catalog, "ann@example.org", cats).secret)
        yield Site(catalog, running, client, cats, tmp_path)


@pytest.fixture
def connect(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[str, dict[str, bytes]], None]:
    """Defines a connection to a root of its own, with files in it by their paths."""

    def define(conn_id: str, files: dict[str, bytes]) -> None:
        root = tmp_path / "roots" / conn_id
        for path, body in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(body)
        connection = {"conn_type": "fs", "extra": {"path": str(root)}}
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(connection))

    return define


BROKEN = {
    "missing": ("file://cats", None, "connection 'broken' is not defined"),
    "of another type": ("file://cats", {"conn_type": "aws"}, "is of type 'aws', not 'fs'"),
    "without a path": ("file://cats", {"conn_type": "fs"}, "nobody has opened a folder"),
    "missing for S3": ("s3://cats", None, "connection 'broken' is not defined"),
    "of another type for S3": ("s3://cats", {"conn_type": "fs"}, "is of type 'fs', not 'aws'"),
    "of what is not yet there": ("gs://cats", None, "arrives in a later release"),
}


@pytest.mark.parametrize(("location", "connection", "why"), BROKEN.values(), ids=BROKEN)
def test_the_log_says_why_a_storage_cannot_be_opened_and_the_answer_does_not(
    site, connect, monkeypatch, caplog, location, connection, why
):
    if connection:
        monkeypatch.setenv("AIRFLOW_CONN_BROKEN", json.dumps(connection))
    connect("good", {"dogs/a.jpg": b"dog"})
    broken = site.storage("photos", location, conn_id="broken")
    site.storage("dogs", "file://dogs", conn_id="good")
    answer = site.client.get("projects", site.cats, f"{location}/a.jpg")

    assert verdict(answer) == MISCONFIGURED
    assert b"broken" not in answer.body
    assert broken.name.encode() not in answer.body
    assert why in caplog.text
    assert site.ask("file://dogs/a.jpg") == (200, "")


def test_a_storage_that_is_given_a_good_connection_works_at_once(site, connect):
    connect("good", {"cats/a.jpg": b"cat"})
    photos = site.storage("photos", "file://cats", conn_id="broken")
    assert [site.ask("file://cats/a.jpg") for _ in range(2)] == [MISCONFIGURED] * 2

    site.change(photos, conn_id="good")
    assert site.ask("file://cats/a.jpg") == (200, "")
    site.change(photos, conn_id="broken")
    assert site.ask("file://cats/a.jpg") == MISCONFIGURED


def test_a_storage_that_moves_is_followed_at_once(site, connect):
    connect("good", {"old/a.jpg": b"old", "new/a.jpg": b"new"})
    photos = site.storage("photos", "file://old", conn_id="good")
    assert site.client.get("projects", site.cats, "file://old/a.jpg").body == b"old"

    site.change(photos, location="file://new")
    assert site.client.get("projects", site.cats, "file://new/a.jpg").body == b"new"
    assert site.ask("file://old/a.jpg") == (403, "forbidden")


@pytest.fixture(scope="module")
def bucket(weed: S3Server) -> Iterator[Bucket]:
    bucket = Bucket(weed, "opening")
    bucket.put({"a.jpg": b"cat"})
    yield bucket
    bucket.client.close()


@pytest.mark.parametrize(
    "wrong",
    [{"password": WRONG_SECRET}, {"login": "AKIDUNKNOWN", "password": WRONG_SECRET}],
    ids=["secret", "key"],
)
def test_credentials_that_are_refused_can_be_replaced(
    site, bucket, weed, monkeypatch, caplog, wrong
):
    """Nobody is told any secret: not by the answer, the log or the metrics."""
    monkeypatch.setenv("AIRFLOW_CONN_BAD", aws_connection(weed, **wrong))
    monkeypatch.setenv("AIRFLOW_CONN_GOOD", aws_connection(weed))
    photos = site.storage("photos", f"s3://{bucket.name}", conn_id="bad")
    uri = f"s3://{bucket.name}/a.jpg"
    answer = site.client.get("projects", site.cats, uri)
    metrics = site.client.send("GET", "/metrics").body.decode()

    assert verdict(answer) == (502, "store_denied")
    assert 'labelport_proxy_upstream_errors_total{error="AccessDenied"}' in metrics
    assert f"{uri}: " in caplog.text
    for secret in (WRONG_SECRET, weed.secret_access_key, site.client.headers["Authorization"][7:]):
        for text in (answer.body.decode(), str(answer.headers), metrics, logged(caplog)):
            assert secret not in text

    site.change(photos, conn_id="good")
    assert site.client.get("projects", site.cats, uri).body == b"cat"


def logged(caplog: Any) -> str:
    """All that the log holds, fields and all, before anything is scrubbed."""
    return "\n".join(f"{record.getMessage()} {vars(record)}" for record in caplog.records)


def test_a_signed_url_is_in_no_log_and_no_metric(site, bucket, weed, monkeypatch, caplog):
    monkeypatch.setenv("AIRFLOW_CONN_GOOD", aws_connection(weed))
    site.storage("photos", f"s3://{bucket.name}", conn_id="good", presign=True)
    answer = site.client.get("projects", site.cats, f"s3://{bucket.name}/a.jpg")
    url = answer.headers["location"]
    signature = url.partition("X-Amz-Signature=")[2].partition("&")[0]

    assert answer.status == 303
    assert len(signature) == 64
    assert signature not in logged(caplog)
    assert signature not in site.client.send("GET", "/metrics").body.decode()


# "Multiple Storages and URL Resolving" of the reference, with buckets behind two connections.


def test_tasks_may_refer_to_another_storages_bucket(site, connect):
    """Case 1: tasks synced from bucket A refer to data in bucket B."""
    tasks = [{"image": "file://bucket-b/img/1.jpg", "text": "file://bucket-b/txt/1.txt"}]
    connect("first", {"bucket-a/tasks.json": json.dumps(tasks).encode()})
    connect(
        "second",
        {
            "bucket-a/tasks.json": b"not this one",
            "bucket-b/img/1.jpg": b"image",
            "bucket-b/txt/1.txt": b"text",
            "bucket-b/img/2.jpg": b"nobody refers to it",
        },
    )
    given = {"serve_any_key": False}
    first = site.storage("storage 1", "file://bucket-a", conn_id="first", **given)
    site.storage("storage 2", "file://bucket-b", conn_id="second", **given)
    state = import_storage(site.catalog, open_store, first, job="tests")
    assert state.last_sync_count == 1

    def ask(uri: str) -> tuple[int, bytes]:
        answer = site.client.get("tasks", 1, uri)
        return answer.status, answer.body if answer.status == 200 else b""

    assert ask("file://bucket-b/img/1.jpg") == (200, b"image")
    assert ask("file://bucket-b/txt/1.txt") == (200, b"text")
    assert ask("file://bucket-b/img/2.jpg") == (403, b"")
    assert ask("file://bucket-a/tasks.json") == (403, b"")


def test_each_bucket_is_read_with_its_own_credentials(site, connect):
    """Case 2: bucket A by credentials 1, bucket B by credentials 2; both are synced."""
    for mine, other, body in (("a", "b", b"one"), ("b", "a", b"two")):
        connect(mine, {f"bucket-{mine}/1.jpg": body, f"bucket-{other}/1.jpg": b"not this one"})
        made = site.storage(
            mine, f"file://bucket-{mine}", conn_id=mine, use_blob_urls=True, serve_any_key=False
        )
        import_storage(site.catalog, open_store, made, job="tests")

    answers = [
        [site.client.get("tasks", number, f"file://bucket-{name}/1.jpg") for name in "ab"]
        for number in (1, 2)
    ]
    bodies = [[a.body if a.status == 200 else a.status for a in row] for row in answers]
    assert bodies == [[b"one", 403], [403, b"two"]]


def test_of_two_storages_the_deeper_one_answers(site, connect):
    connect("wide", {"cats/img/a.jpg": b"wide", "cats/img2/a.jpg": b"wide"})
    connect("deep", {"cats/img/a.jpg": b"deep", "cats/img2/a.jpg": b"deep"})
    site.storage("wide", "file://cats", conn_id="wide", synchronizable=False)
    site.storage("deep", "file://cats/img", conn_id="deep", synchronizable=False)

    for key, body in (("img/a.jpg", b"deep"), ("img2/a.jpg", b"wide")):
        assert site.client.get("projects", site.cats, f"file://cats/{key}").body == body


def test_storages_that_could_both_answer_are_reported(site, connect, caplog):
    for name in ("one", "two"):
        connect(name, {"cats/a.jpg": name.encode()})
        site.storage(name, "file://cats", conn_id=name, synchronizable=False)

    assert site.client.get("projects", site.cats, "file://cats/a.jpg").body == b"one"
    assert "storage one answers for file://cats/, as two could" in caplog.text


# When a store is opened again, by a clock of our own.


class Opener:
    """Opens stores in memory, and counts; refuses or waits while it is told to."""

    def __init__(self) -> None:
        self.calls = 0
        self.open = 0
        self.error: ConfigurationError | None = None
        self.may_end = threading.Event()
        self.may_end.set()

    def __call__(self, storage: Storage) -> MemoryStore:
        self.calls += 1
        assert self.may_end.wait(30)
        if self.error:
            raise self.error
        self.open += 1
        return _Closing(self)


class _Closing(MemoryStore):
    def __init__(self, opener: Opener) -> None:
        super().__init__("opening")
        self._opener = opener

    async def close(self) -> None:
        self._opener.open -= 1


class Time:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


STORAGE = Storage(1, 1, "photos", Direction.IMPORT, "memory", "opening")
PLACE = Place("memory", "opening", None)
ELSEWHERE = replace(STORAGE, conn_id="other")
EDITED = replace(STORAGE, presign_seconds=60, prefix="img", name="pictures")


class Opening(NamedTuple):
    opener: Opener
    time: Time
    stores: Stores

    async def calls(self, storage: Storage = STORAGE) -> int:
        """How often stores had been opened once this one is, or was refused."""
        with_error = await asyncio.gather(self.stores.get(storage), return_exceptions=True)
        assert all(not isinstance(e, Exception) or e is self.opener.error for e in with_error)
        return self.opener.calls

    async def hang(self) -> threading.Event:
        """Ask for the store in vain: that opening, and no later one, waits for the event."""
        self.opener.may_end = hanging = threading.Event()
        with pytest.raises(StoreTimeout):
            await self.stores.get(STORAGE)
        self.opener.may_end = threading.Event()
        self.opener.may_end.set()
        return hanging

    async def known(self) -> None:
        """Wait until the store is opened, by a thread that tells nobody here."""
        async with asyncio.timeout(10):
            while not self.stores.known(STORAGE):  # noqa: ASYNC110
                await asyncio.sleep(0.005)


async def others() -> None:
    """Wait until all other tasks are done."""
    await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})


def with_stores(story: Callable[[Opening], Any], **patience: float) -> None:
    """Run *story*, and see that every store is closed in the end."""

    async def run() -> None:
        opener, now = Opener(), Time()
        opening = Opening(opener, now, Stores(opener, now, **patience))
        try:
            await story(opening)
        finally:
            opener.may_end.set()
            await others()
            await opening.stores.close()
        assert opener.open == 0

    asyncio.run(run())


def test_a_store_is_opened_once_for_many_at_once():
    async def story(o: Opening) -> None:
        found = await asyncio.gather(*(o.stores.get(STORAGE) for _ in range(20)))

        assert o.opener.calls == 1
        assert len(set(found)) == 1

    with_stores(story)


def test_who_gives_up_waiting_spoils_it_for_nobody():
    async def story(o: Opening) -> None:
        hasty, patient = (asyncio.ensure_future(o.stores.get(STORAGE)) for _ in range(2))
        await asyncio.sleep(0)
        hasty.cancel()

        assert (await patient).place == PLACE
        assert o.opener.calls == 1

    with_stores(story)


def test_a_connection_is_looked_up_again_now_and_then():
    """It may have been changed."""

    async def story(o: Opening) -> None:
        assert await o.calls() == 1
        o.time.now += 899
        assert await o.calls() == 1
        o.time.now += 2
        assert await o.calls() == 2

    with_stores(story)


def test_what_cannot_be_opened_is_tried_again_after_a_pause():
    async def story(o: Opening) -> None:
        o.opener.error = ConfigurationError("connection 'photos' is not defined")
        assert [await o.calls() for _ in range(3)] == [1, 1, 1]
        o.time.now += 6
        assert await o.calls() == 2

        o.opener.error = None
        o.time.now += 6
        assert await o.calls() == 3
        assert (await o.stores.get(STORAGE)).place == PLACE

    with_stores(story)


def test_what_cannot_be_opened_is_tried_at_once_when_it_is_changed():
    async def story(o: Opening) -> None:
        o.opener.error = ConfigurationError("connection 'photos' is not defined")
        assert await o.calls() == 1
        assert await o.calls(ELSEWHERE) == 2

    with_stores(story)


def test_credentials_that_were_refused_are_looked_up_again_after_a_pause():
    """Not at each refusal: there are objects that a good connection may not read."""

    async def story(o: Opening) -> None:
        refused = await o.stores.get(STORAGE)
        o.time.now += 10
        o.stores.refused(refused)
        assert await o.calls() == 1

        o.time.now += 21
        o.stores.refused(refused)
        o.stores.refused(refused)
        assert await o.calls() == 2
        o.stores.refused(refused)
        assert await o.calls() == 2

    with_stores(story)


def test_a_store_goes_on_where_it_cannot_be_opened_again():
    """Whatever tells connections fails at times; the store that is open does not for that."""

    async def story(o: Opening) -> None:
        old = await o.stores.get(STORAGE)
        o.opener.error = ConfigurationError("connection 'photos' is not defined")
        o.time.now += 901
        assert [await o.stores.get(STORAGE) for _ in range(3)] == [old] * 3
        assert o.stores.known(STORAGE) is old
        assert o.opener.calls == 2
        o.time.now += 6
        assert await o.stores.get(STORAGE) is old
        assert o.opener.calls == 3

        o.opener.error = None
        o.time.now += 6
        assert await o.stores.get(STORAGE) is not old

    with_stores(story)


def test_it_does_not_go_on_for_ever():
    """The connection may have been deleted."""

    async def story(o: Opening) -> None:
        await o.stores.get(STORAGE)
        o.opener.error = ConfigurationError("connection 'photos' is not defined")
        o.time.now += 901
        await o.stores.get(STORAGE)
        o.time.now += 901

        with pytest.raises(ConfigurationError):
            await o.stores.get(STORAGE)

    with_stores(story)


def test_a_refusal_does_not_end_a_store_that_cannot_be_opened_again():
    async def story(o: Opening) -> None:
        old = await o.stores.get(STORAGE)
        o.opener.error = ConfigurationError("connection 'photos' is not defined")
        o.time.now += 31
        o.stores.refused(old)
        assert await o.stores.get(STORAGE) is old
        o.stores.refused(old)
        assert await o.stores.get(STORAGE) is old
        assert o.opener.calls == 2

    with_stores(story)


def test_nobody_waits_for_ever_for_a_store():
    """The first waits for so long, the next not at all, and what is opened late is used."""

    async def story(o: Opening) -> None:
        o.opener.may_end.clear()
        for _ in range(2):
            begun = time.monotonic()
            got = await asyncio.gather(
                *(o.stores.get(STORAGE) for _ in range(5)), return_exceptions=True
            )
            assert [type(each) for each in got] == [StoreTimeout] * 5
        assert time.monotonic() - begun < 0.15
        o.opener.may_end.set()
        await o.known()

        assert o.opener.calls == 1

    with_stores(story, patience_seconds=0.2)


def test_an_opening_that_never_ends_keeps_no_other_from_beginning():
    """After a minute, for each may cost a thread."""

    async def story(o: Opening) -> None:
        hanging = await o.hang()
        o.time.now += 59
        with pytest.raises(StoreTimeout):
            await o.stores.get(STORAGE)
        assert o.opener.calls == 1

        o.time.now += 2
        opened = await o.stores.get(STORAGE)
        assert o.opener.calls == 2
        hanging.set()
        await others()
        assert o.stores.known(STORAGE) is opened

    with_stores(story, patience_seconds=0.5)


def test_what_is_opened_late_is_used_though_another_has_begun():
    async def story(o: Opening) -> None:
        hanging = await o.hang()
        o.time.now += 61
        later = await o.hang()
        hanging.set()
        await o.known()
        opened = await o.stores.get(STORAGE)
        later.set()
        await others()

        assert o.opener.calls == 2
        assert o.stores.known(STORAGE) is opened

    with_stores(story, patience_seconds=0.5)


def test_a_store_goes_on_while_it_is_opened_again_slowly():
    async def story(o: Opening) -> None:
        old = await o.stores.get(STORAGE)
        o.opener.may_end.clear()
        o.time.now += 901

        assert await asyncio.gather(*(o.stores.get(STORAGE) for _ in range(5))) == [old] * 5
        assert o.stores.known(STORAGE) is old
        o.time.now += 901
        with pytest.raises(StoreTimeout):
            await o.stores.get(STORAGE)
        o.opener.may_end.set()
        await o.known()

    with_stores(story, patience_seconds=30.0, reopen_seconds=0.05)


def test_a_storage_with_another_connection_is_opened_anew():
    async def story(o: Opening) -> None:
        old = await o.stores.get(STORAGE)
        new = await o.stores.get(ELSEWHERE)

        assert (old.place, new.place) == (PLACE, PLACE._replace(conn_id="other"))
        assert o.opener.calls == 2
        assert o.opener.open == 2  # what is under way from the old one goes on

    with_stores(story)


def test_storages_of_one_place_share_its_store():
    """While an edit spreads, old and new settings are asked for in turn."""

    async def story(o: Opening) -> None:
        found = [await o.stores.get(each) for each in (STORAGE, EDITED) * 5]

        assert len(set(found)) == 1
        assert o.opener.calls == 1

    with_stores(story)
