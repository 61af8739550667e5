"""What operators rely on: how the proxy starts, stops, scales, and what it tells."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from subprocess import Popen
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from prometheus_client.parser import text_string_to_metric_families

from catalogs import TEMPLATE, postgres_database
from demo.processes import free_ports, process, responds
from forwarding import Forwarder, forwarder
from labelport import links
from labelport.catalog import Catalog
from labelport.resolving import proxy_path, proxy_url
from labelport.stores.local import LocalStore
from proxies import SECRET, Client, project, proxy, proxy_process, somebody, storage
from served import verdict
from servers import PostgresServer
from upstreams import Got, ask

BIG_BYTES = 8 << 20  #: more than is on its way at once
SMALL = b"small"
NGINX = shutil.which("nginx", path=os.defpath + ":/usr/sbin:/usr/local/sbin")
#: Of the test's environment, what would decide for the proxy.
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("LABELPORT_")}


@dataclass(frozen=True)
class Service:
    """A proxy in processes of its own, that serves a folder to a member."""

    client: Client
    process: Popen[bytes]
    folder: Path
    target: str  #: of a small object
    big: str  #: of a big one
    user_id: int
    project_id: int

    def ask(self, target: str, url: str = "", **more: Any) -> Got:
        headers = {**self.client.headers, **more.pop("headers", {})}
        return ask(url or self.client.url, target, headers, **more)

    @contextmanager
    def stream(self) -> Iterator[http.client.HTTPResponse]:
        """The big object, of which nothing has been read yet."""
        connection = http.client.HTTPConnection(urlsplit(self.client.url).netloc, timeout=30)
        with closing(connection):
            connection.request("GET", self.big, headers=self.client.headers)
            with connection.getresponse() as answer:
                assert answer.status == 200
                yield answer

    def lines(self) -> list[dict[str, Any]]:
        """The log so far, each line of it JSON."""
        text = (self.folder / "server.log").read_text()
        return [json.loads(line) for line in text.splitlines()]

    def requests(self, count: int = 1, **fields: object) -> list[dict[str, Any]]:
        """The lines of requests with these *fields*, once there are so many."""

        def found() -> list[dict[str, Any]]:
            lines = [line for line in self.lines() if line["message"] == "request"]
            return [line for line in lines if fields.items() <= line.items()]

        assert eventually(lambda: len(found()) >= count), self.lines()
        return found()


@contextmanager
def service(template: Path, folder: Path, **environment: str) -> Iterator[Service]:
    """A `Service` on a new catalog in *folder*."""
    url = f"sqlite:///{shutil.copy(template, folder / 'catalog.db')}"
    (folder / "media").mkdir()
    (folder / "media" / "big.bin").write_bytes(bytes(BIG_BYTES))
    (folder / "media" / "small.bin").write_bytes(SMALL)
    with Catalog(url) as catalog:
        project_id = project(catalog, "Cats")
        storage(catalog, project_id, "media", "file://media", serve_any_key=True, presign=False)
        member = somebody(catalog, "member@example.org", project_id)
    environment |= {"LABELPORT_LOCAL_ROOT": str(folder), "TMPDIR": str(folder)}
    with proxy_process(url, folder, environment) as (client, running):
        client.headers["Authorization"] = f"Bearer {member.secret}"
        targets = [
            proxy_url("", "projects", project_id, f"file://media/{key}")
            for key in ("small.bin", "big.bin")
        ]
        yield Service(client, running, folder, *targets, member.id, project_id)


@pytest.fixture(scope="module")
def running(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with service(sqlite_template, tmp_path_factory.mktemp("running")) as opened:
        yield opened


def eventually(holds: Callable[[], bool], seconds: float = 10) -> bool:
    """Whether it comes true, for what tells nobody when it does."""
    deadline = time.monotonic() + seconds
    while not (held := holds()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return held


def refuses(url: str) -> bool:
    """Whether nobody listens there any more."""
    place = urlsplit(url)
    try:
        socket.create_connection((place.hostname or "", place.port or 0), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


def test_sigterm_lets_streams_end_whole(sqlite_template: Path, tmp_path: Path) -> None:
    """Nobody new is let in meanwhile; idle connections are closed; the exit status is 0."""
    with (
        service(sqlite_template, tmp_path, LABELPORT_PROXY_SHUTDOWN_SECONDS="20") as opened,
        closing(http.client.HTTPConnection(urlsplit(opened.client.url).netloc)) as idle,
        opened.stream() as stream,
    ):
        idle.request("GET", "/healthz")
        idle.getresponse().read()

        opened.process.send_signal(signal.SIGTERM)

        assert eventually(lambda: refuses(opened.client.url))
        assert idle.sock.recv(1) == b""
        assert opened.process.poll() is None
        assert stream.read() == bytes(BIG_BYTES)
        assert opened.process.wait(5) == 0
        (line,) = opened.requests(path=proxy_path("projects", opened.project_id))
        assert (line["outcome"], line["bytes"]) == ("full", BIG_BYTES)


def test_a_stream_that_takes_longer_than_the_shutdown_may_is_cut_off(
    sqlite_template: Path, tmp_path: Path
) -> None:
    with (
        service(sqlite_template, tmp_path, LABELPORT_PROXY_SHUTDOWN_SECONDS="1") as opened,
        opened.stream() as stream,
    ):
        opened.process.send_signal(signal.SIGTERM)

        assert opened.process.wait(6) == 0
        with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
            stream.read()
        (line,) = opened.requests(path=proxy_path("projects", opened.project_id))
        assert (line["outcome"], line["error"]) == ("truncated", "shutdown")
        assert not any("traceback" in line for line in opened.lines())


def workers(pid: int) -> set[int]:
    """The serving children of a process."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    found = set()
    for child in children:
        try:
            command = Path(f"/proc/{child}/cmdline").read_bytes()
        except FileNotFoundError:
            continue
        if b"spawn_main" in command:
            found.add(int(child))
    return found


@contextmanager
def only(worker: int, everybody: set[int]) -> Iterator[None]:
    """The others stand still, for less than the five seconds after which they would be replaced."""
    for other in everybody - {worker}:
        os.kill(other, signal.SIGSTOP)
    try:
        yield
    finally:
        for other in everybody - {worker}:
            os.kill(other, signal.SIGCONT)


def number(client: Client, name: str, **labels: str) -> float:
    """One of a proxy's metrics."""
    text = client.send("GET", "/metrics").body.decode()
    samples = (s for family in text_string_to_metric_families(text) for s in family.samples)
    return sum(s.value for s in samples if s.name == name and labels.items() <= s.labels.items())


def test_several_workers_serve_count_together_and_are_replaced(
    sqlite_template: Path, tmp_path: Path
) -> None:
    with (
        service(sqlite_template, tmp_path, LABELPORT_PROXY_WORKERS="2") as opened,
        ExitStack() as stack,
    ):
        assert eventually(lambda: len(workers(opened.process.pid)) == 2)
        first, second = both = workers(opened.process.pid)

        for worker in both:
            with only(worker, both):
                assert opened.ask(opened.target).body == SMALL
                assert number(opened.client, "labelport_proxy_requests_total", outcome="full") > 0
        for worker in both:
            with only(worker, both):
                name = "labelport_proxy_requests_total"
                assert number(opened.client, name, outcome="full") == 2

        with only(first, both):
            stream = stack.enter_context(opened.stream())
            assert eventually(lambda: number(opened.client, "labelport_proxy_open_streams") == 1)
        with only(second, both):
            assert number(opened.client, "labelport_proxy_open_streams") == 1
        os.kill(first, signal.SIGKILL)

        with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
            stream.read()
        assert eventually(lambda: len(workers(opened.process.pid) - {first}) == 2)
        assert opened.ask(opened.target).body == SMALL
        assert number(opened.client, "labelport_proxy_open_streams") == 0
        assert number(opened.client, "labelport_proxy_requests_total", outcome="full") >= 3
        opened.process.send_signal(signal.SIGTERM)
        assert opened.process.wait(10) == 0
        assert not list(tmp_path.glob("labelport-metrics-*"))


@pytest.fixture(scope="module")
def nginx(running: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a reverse proxy in front of the proxy."""
    if NGINX is None:
        pytest.skip("there is no nginx on this machine")
    folder = tmp_path_factory.mktemp("nginx")
    (port,) = free_ports(1)
    temporary = "\n".join(
        f"  {kind}_temp_path {folder}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"""
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
events {{}}
http {{
  access_log off;
{temporary}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass {running.client.url};
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Request-ID $request_id;
    }}
  }}
}}
"""
    )
    command = [NGINX, "-p", str(folder), "-c", "nginx.conf", "-e", "error.log"]
    url = f"http://127.0.0.1:{port}"
    with process(command, folder, signal.SIGTERM, lambda: responds(url)):
        yield url


def test_behind_a_reverse_proxy_the_clients_address_and_the_id_are_its(
    running: Service, nginx: str
) -> None:
    """Not what the client says of itself."""
    forged = {"X-Forwarded-For": "192.0.2.66", "X-Request-ID": "forged-by-the-client"}

    got = running.ask(running.target, nginx, source="127.0.0.2", headers=forged)

    assert (got.status, got.body) == (200, SMALL)
    (line,) = running.requests(request_id=got.headers["x-request-id"])
    assert line["client"] == "127.0.0.2"
    assert len(line["request_id"]) == 32


def test_a_range_comes_through_a_reverse_proxy(running: Service, nginx: str) -> None:
    got = running.ask(running.big, nginx, headers={"Range": "bytes=10-19"})

    assert (got.status, got.headers["content-range"]) == (206, f"bytes 10-19/{BIG_BYTES}")
    assert got.body == bytes(10)


def test_only_reverse_proxies_that_are_trusted_tell_the_clients_address(running: Service) -> None:
    forged = {"X-Forwarded-For": "192.0.2.66", "X-Request-ID": "directly-from-nowhere"}

    running.ask(running.target, source="127.0.0.2", headers=forged)

    (line,) = running.requests(request_id="directly-from-nowhere")
    assert line["client"] == "127.0.0.2"


def test_a_request_id_is_taken_over_and_returned(running: Service) -> None:
    got = running.ask(running.target, headers={"X-Request-ID": "f00d-4.2:abc_DEF"})
    refused = running.ask("/nothing", headers={"X-Request-ID": "f00d-refused"})

    assert got.headers["x-request-id"] == "f00d-4.2:abc_DEF"
    assert refused.headers["x-request-id"] == "f00d-refused"
    assert json.loads(refused.body)["request_id"] == "f00d-refused"
    assert len(running.requests(request_id="f00d-4.2:abc_DEF")) == 1


@pytest.mark.parametrize(
    "given",
    ["short", "x" * 129, "with space in it", 'quote"quote"quote', "é" * 10],
    ids=["short", "long", "spaces", "quotes", "not ASCII"],
)
def test_a_request_id_that_is_none_is_replaced(running: Service, given: str) -> None:
    got = running.ask(running.target, headers={"X-Request-ID": given})

    assert got.headers["x-request-id"] != given
    assert len(running.requests(request_id=got.headers["x-request-id"])) == 1


def test_each_request_is_one_line_of_json_without_its_query(running: Service) -> None:
    """A signed link is in the query: whoever reads the log must not get the object."""
    path, uri = proxy_path("projects", running.project_id), "file://media/small.bin"
    expires = int(time.time()) + 60
    signature = links.sign(SECRET, path, uri, running.user_id, expires)
    query = f"fileuri={quote(uri, safe='')}&user={running.user_id}&expires={expires}"
    headers = {"X-Request-ID": "by-a-signed-link"}
    damaged = {"X-Request-ID": "by-a-damaged-link"}

    got = ask(running.client.url, f"{path}?{query}&signature={signature}", headers)
    refused = ask(running.client.url, f"{path}?{query}&signature=damaged-signature", damaged)

    assert (got.status, got.body, refused.status) == (200, SMALL, 403)
    (line,) = running.requests(request_id="by-a-signed-link")
    assert {name: line[name] for name in ("method", "path", "status", "outcome", "user")} == {
        "method": "GET",
        "path": path,
        "status": 200,
        "outcome": "full",
        "user": running.user_id,
    }
    assert (line["bytes"], line["level"]) == (len(SMALL), "info")
    assert 0 < line["first_byte_seconds"] <= line["seconds"]
    (line,) = running.requests(request_id="by-a-damaged-link")
    assert (line["outcome"], line["user"]) == ("forbidden", None)
    text = (running.folder / "server.log").read_text()
    token = running.client.headers["Authorization"].partition(" ")[2]
    for secret in (signature, "damaged-signature", "fileuri", "small.bin", token, SECRET):
        assert secret not in text


@pytest.mark.parametrize("secret", [None, "", "too short"], ids=["missing", "empty", "short"])
def test_without_a_secret_the_proxy_does_not_start(tmp_path: Path, secret: str | None) -> None:
    environment = CLEAN if secret is None else CLEAN | {"LABELPORT_PROXY_SECRET": secret}

    ended = start(tmp_path, environment)

    assert ended.returncode == 2
    assert "LABELPORT_PROXY_SECRET" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_help_tells_what_is_needed(tmp_path: Path) -> None:
    ended = start(tmp_path, CLEAN, "--help")

    assert ended.returncode == 0
    assert "LABELPORT_PROXY_SECRET" in ended.stdout
    assert "LABELPORT_CATALOG_URL" in ended.stdout


def start(
    folder: Path, environment: dict[str, str], *arguments: str
) -> subprocess.CompletedProcess[str]:
    """``python -m labelport_proxy``, until it ends."""
    return subprocess.run(
        [sys.executable, "-m", "labelport_proxy", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_without_its_catalog_the_proxy_lives_and_is_not_ready(
    postgres: PostgresServer, postgres_template: None, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        with postgres_database(postgres, TEMPLATE) as url:
            running = stack.enter_context(
                proxy(Catalog(url), lambda _: LocalStore(tmp_path, "media"))
            )
            anybody = running.as_user("lp_" + "x" * 43)
            assert anybody.send("GET", "/readyz").status == 200
            assert anybody.get("tasks", 1, "file://media/key").status == 401
        ready, alive = anybody.send("GET", "/readyz"), anybody.send("GET", "/healthz")
        asked = anybody.get("tasks", 1, "file://media/key")

    assert (ready.status, json.loads(ready.body)["error"]) == (503, "not_ready")
    assert alive.status == 200
    assert (asked.status, json.loads(asked.body)["error"]) == (503, "catalog_unavailable")
    assert b"test_" not in ready.body + asked.body  # the database's name


def test_a_catalog_that_hangs_is_told_of_in_time(
    postgres: PostgresServer,
    postgres_template: None,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """By those who are known and those who are not; and it is used as soon as it goes on."""
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / "key").write_bytes(SMALL)
    with ExitStack() as stack:
        direct = stack.enter_context(postgres_database(postgres, TEMPLATE))
        way = stack.enter_context(forwarder(postgres.host, postgres.port))
        catalog = stack.enter_context(Catalog(direct))
        cats, dogs = project(catalog, "Cats"), project(catalog, "Dogs")
        for number in (cats, dogs):
            settings = {"serve_any_key": True, "presign": False}
            storage(catalog, number, f"media-{number}", "file://media", **settings)
        known = somebody(catalog, "known@example.org", cats, dogs)
        stranger = somebody(catalog, "stranger@example.org", cats)
        running = stack.enter_context(
            proxy(
                Catalog(through(way, direct), answer_seconds=1),
                lambda _: LocalStore(tmp_path, "media"),
                access_seconds=60,
            )
        )
        client = running.as_user(known.secret)
        asks = [
            partial(client.get, "projects", dogs, "file://media/key"),
            partial(running.as_user(stranger.secret).get, "projects", cats, "file://media/key"),
            partial(client.send, "GET", "/readyz"),
        ]
        assert client.get("projects", cats, "file://media/key").body == SMALL
        way.freeze()
        with ThreadPoolExecutor() as pool:
            begun = time.monotonic()
            hung = [answer.result() for answer in [pool.submit(ask) for ask in asks]]
            seconds = time.monotonic() - begun
        assert client.get("projects", cats, "file://media/key").body == SMALL  # it is remembered
        assert client.send("GET", "/healthz").status == 200
        way.thaw()
        again = [eventually(lambda ask=ask: ask().status == 200) for ask in asks]

    errors = [(answer.status, json.loads(answer.body)["error"]) for answer in hung]
    assert errors == [(503, "catalog_unavailable")] * 2 + [(503, "not_ready")]
    assert seconds < 8
    assert again == [True] * 3
    (line,) = (text for text in caplog.messages if text.startswith("not ready: "))
    assert line.removeprefix("not ready: ")


def test_a_catalog_that_hangs_keeps_the_proxy_from_neither_start_nor_end(
    postgres: PostgresServer, postgres_template: None, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        way = stack.enter_context(forwarder(postgres.host, postgres.port))
        way.freeze()
        url = through(way, postgres.url())
        begun = time.monotonic()
        with proxy(
            Catalog(url, answer_seconds=1), lambda _: LocalStore(tmp_path, "media")
        ) as running:
            assert running.as_user("token").send("GET", "/healthz").status == 200

        assert time.monotonic() - begun < 10


def test_sigterm_ends_the_process_while_a_statement_hangs(
    postgres: PostgresServer, postgres_template: None, tmp_path: Path
) -> None:
    """It would go on for as long as PostgreSQL may take to answer."""
    with ExitStack() as stack:
        direct = stack.enter_context(postgres_database(postgres, TEMPLATE))
        way = stack.enter_context(forwarder(postgres.host, postgres.port))
        patience = {"LABELPORT_PROXY_SHUTDOWN_SECONDS": "1"}
        client, process = stack.enter_context(
            proxy_process(through(way, direct), tmp_path, patience)
        )
        way.freeze()
        assert client.send("GET", "/readyz").status == 503
        threads = stack.enter_context(ThreadPoolExecutor(1))
        waiting = threads.submit(client.send, "GET", "/readyz")
        time.sleep(0.3)

        process.send_signal(signal.SIGTERM)

        assert verdict(waiting.result(5)) == (503, "shutting_down")
        assert process.wait(5) == 0
        log = (tmp_path / "server.log").read_text()
        assert "Finished server process" in log
        assert "traceback" not in log


def through(way: Forwarder, url: str) -> str:
    """The *url* of a database, by a *way* that may freeze."""
    place = urlsplit(url)
    return place._replace(netloc=f"{place.username}@127.0.0.1:{way.port}").geturl()


def test_a_catalog_that_is_not_migrated_is_not_served(empty_url: str, tmp_path: Path) -> None:
    with proxy(Catalog(empty_url), lambda _: LocalStore(tmp_path, "media")) as running:
        client = running.as_user("token")
        assert client.send("GET", "/readyz").status == 503
        assert client.send("GET", "/healthz").status == 200
