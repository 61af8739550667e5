"""Clients that leave, crawl, never read or never finish asking, and very many at once.

The proxy runs as operators run it, in a process of its own: its memory and its descriptors are
what the system says.
"""

from __future__ import annotations

import asyncio
import http.client
import os
import resource
import shutil
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

import pytest
from prometheus_client.parser import text_string_to_metric_families

from buckets import Bucket, aws_connection
from labelport.catalog import Catalog
from labelport.resolving import proxy_url
from labelport.stores.local import LocalStore
from labelport_proxy import bodies, server
from loopback import stall
from proxies import Client, Running, project, proxy, proxy_process, somebody, storage
from servers import S3Server
from upstreams import Upstream, upstream_server

BIG_BYTES = 64 << 20
MEDIUM_BYTES = 320 << 10  #: more than the kernel holds for a client that does not read
SMALL = bytes(range(256)) * 16
#: What the process may keep of the memory that clients took, for its next ones; about 10 MiB are
#: seen, and a thousand streams that are not freed would be at least 60.
MOST_LEFT_KIB = 32 << 10
STALL_SECONDS = 3

#: What one slow client may take of the proxy's own memory. It takes about 200: a chunk (64 KiB)
#: that was received, one on its way and one not yet sent, beside tasks, parsers and headers. As
#: much again for what an allocator under load cannot give back, and again for another machine's.
CLIENT_KIB = 600

STORES = pytest.mark.parametrize("store", ["local", "weed"])


@dataclass(frozen=True)
class Served:
    """A proxy in a process, and one member's way to objects in three storages."""

    client: Client
    pid: int
    project_id: int
    locations: dict[str, str]
    store_ports: frozenset[int]
    upstream: Upstream

    @property
    def port(self) -> int:
        return urlsplit(self.client.url).port or 0

    def target(self, store: str, key: str) -> str:
        return proxy_url("", "projects", self.project_id, f"{self.locations[store]}/{key}")

    def request(self, target: str, *headers: str, method: str = "GET") -> bytes:
        """A request as it is sent."""
        fields = [f"{name}: {value}" for name, value in self.client.headers.items()]
        lines = [f"{method} {target} HTTP/1.1", "Host: proxy", *fields, *headers, "", ""]
        return "\r\n".join(lines).encode()

    def connect(self, receive_bytes: int = 0) -> socket.socket:
        """A connection, of which the kernel holds so much."""
        made = socket.socket()
        if receive_bytes:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        made.settimeout(30)
        made.connect(("127.0.0.1", self.port))
        return made

    def clients(self) -> set[int]:
        """The ports of the clients that the proxy holds a connection of."""
        return {peer for own, peer in self._sockets() if own == self.port and peer}

    def descriptors(self) -> int:
        """Open files of the proxy, but for the connections to stores that it keeps."""
        kept = sum(peer in self.store_ports for _, peer in self._sockets())
        return len(os.listdir(f"/proc/{self.pid}/fd")) - kept

    def _sockets(self) -> Iterator[tuple[int, int]]:
        """Own port and peer's port of the proxy's connections."""
        by_inode = {}
        for line in Path(f"/proc/{self.pid}/net/tcp").read_text().splitlines()[1:]:
            _, own, peer, *_, inode = line.split()[:10]
            by_inode[f"socket:[{inode}]"] = (int(own[9:], 16), int(peer[9:], 16))
        for name in os.listdir(f"/proc/{self.pid}/fd"):
            try:
                found = by_inode.get(os.readlink(f"/proc/{self.pid}/fd/{name}"))
            except FileNotFoundError:
                continue
            if found:
                yield found

    def memory_kib(self) -> int:
        """What the proxy holds of the machine's memory."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0])

    def number(self, name: str, **labels: str) -> float:
        """One of its metrics."""
        text = self.client.send("GET", "/metrics").body.decode()
        samples = (s for family in text_string_to_metric_families(text) for s in family.samples)
        return sum(
            s.value for s in samples if s.name == name and labels.items() <= s.labels.items()
        )


@pytest.fixture(scope="module", autouse=True)
def many_files() -> Iterator[None]:
    """Enough descriptors for us: what the proxy needs, it asks for itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = 8192
    if soft != resource.RLIM_INFINITY and soft < enough:
        most = enough if hard == resource.RLIM_INFINITY else min(hard, enough)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="module")
def opened(
    weed: S3Server, sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("clients")
    url = f"sqlite:///{shutil.copy(sqlite_template, folder / 'catalog.db')}"
    with ExitStack() as stack:
        upstream = stack.enter_context(upstream_server())
        stalled = S3Server(upstream.url, "AKIDEXAMPLE", "secret")
        locations = {"local": "file://media", "weed": "s3://clients", "stalled": "s3://stalled"}
        connections = {"local": None, "weed": "weed", "stalled": "stalled"}
        catalog = stack.enter_context(Catalog(url))
        project_id = project(catalog, "Cats")
        for name, location in locations.items():
            more = {"conn_id": connections[name], "serve_any_key": True, "presign": False}
            storage(catalog, project_id, name, location, **more)
        member = somebody(catalog, "member@example.org", project_id)
        fill(weed, folder)
        environment = {
            "AIRFLOW_CONN_WEED": aws_connection(weed),
            "AIRFLOW_CONN_STALLED": aws_connection(stalled),
            "LABELPORT_LOCAL_ROOT": str(folder),
            "RESOLVER_PROXY_TIMEOUT": str(STALL_SECONDS),
            "LABELPORT_PROXY_UPSTREAM_TIMEOUT": str(STALL_SECONDS),
            "LABELPORT_PROXY_MIN_RATE": "1024",
            "LABELPORT_PROXY_KEEP_ALIVE_SECONDS": "3",
            "LABELPORT_PROXY_REQUESTS_PER_SECOND": "0",
            "LABELPORT_PROXY_STREAMS_PER_USER": "0",
            "LABELPORT_PROXY_ACCESS_SECONDS": "600",
        }
        client, process = stack.enter_context(proxy_process(url, folder, environment))
        client.headers["Authorization"] = f"Bearer {member.secret}"
        ports = frozenset(urlsplit(each).port or 0 for each in (weed.endpoint, upstream.url))
        served = Served(client, process.pid, project_id, locations, ports, upstream)
        for store in ("local", "weed"):  # whatever opens once is open now
            assert client.send("GET", served.target(store, "small.bin")).body == SMALL
        yield served


def fill(weed: S3Server, root: Path) -> None:
    """The same objects in both stores."""
    objects = {"big.bin": bytes(BIG_BYTES), "medium.bin": bytes(MEDIUM_BYTES), "small.bin": SMALL}
    Bucket(weed, "clients").put(objects)
    (root / "media").mkdir()
    for key, body in objects.items():
        (root / "media" / key).write_bytes(body)


@pytest.fixture
def served(opened: Served) -> Iterator[Served]:
    """After each test no client and no stream is left, nor anything that was open for them."""
    before = opened.descriptors()
    yield opened

    assert eventually(lambda: not opened.clients())
    assert opened.number("labelport_proxy_open_streams") == 0
    assert eventually(lambda: opened.descriptors() <= before), (opened.descriptors(), before)
    assert opened.client.send("GET", opened.target("weed", "small.bin")).body == SMALL


@pytest.fixture
def lean(served: Served) -> Iterator[None]:
    """After the test no memory is taken for its clients; there is no more than a reserve."""
    before = served.memory_kib()
    yield
    assert served.memory_kib() - before < MOST_LEFT_KIB


def eventually(holds: Callable[[], bool], seconds: float = 10) -> bool:
    """Whether it comes true, for what tells nobody when it does."""
    deadline = time.monotonic() + seconds
    while not (held := holds()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return held


def leave(connection: socket.socket, *, politely: bool) -> None:
    """Close, in good order or by a reset."""
    if not politely:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def answer(stream: BinaryIO, method: str = "GET") -> tuple[int, http.client.HTTPMessage, bytes]:
    """The next answer on a connection: status, headers, body."""
    status = int(stream.readline().split()[1])
    headers = http.client.parse_headers(stream)
    bodiless = method == "HEAD" or status in (204, 304)
    body = b"" if bodiless else stream.read(int(headers["Content-Length"]))
    return status, headers, body


@STORES
@pytest.mark.usefixtures("lean")
def test_clients_that_leave_amid_the_body(served: Served, store: str) -> None:
    """200 of them, one after the other, politely or not."""
    request = served.request(served.target(store, "big.bin"))
    for number in range(200):
        connection = served.connect()
        connection.sendall(request)
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
        leave(connection, politely=number % 2 == 0)


@pytest.mark.usefixtures("lean")
def test_clients_that_leave_before_the_head(served: Served) -> None:
    """200 of them; the store does not even answer."""
    request = served.request(served.target("stalled", served.upstream.will(stall)))
    for number in range(200):
        connection = served.connect()
        connection.sendall(request)
        leave(connection, politely=number % 2 == 0)

    assert eventually(served.upstream.left_alone)


@STORES
def test_slow_clients_cost_little_and_always_the_same(served: Served, store: str) -> None:
    """200 read a big object at once, 64 KiB a second each, and then all are gone."""
    request = served.request(served.target(store, "big.bin"))
    before = served.memory_kib()
    got = [0] * 200

    async def reads_slowly(number: int, turn: asyncio.Semaphore, begun: asyncio.Barrier) -> None:
        connection = served.connect(receive_bytes=32 << 10)
        reader, writer = await asyncio.open_connection(sock=connection, limit=8 << 10)
        try:
            async with turn:  # the store is slow to begin with so many at once
                writer.write(request)
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            async with asyncio.TaskGroup() as group:
                group.create_task(begun.wait())
                while True:
                    got[number] += len(await reader.readexactly(16 << 10))
                    await asyncio.sleep(0.25)
        finally:
            writer.transport.abort()

    async def watched() -> list[int]:
        turn, begun = asyncio.Semaphore(20), asyncio.Barrier(201)
        sizes = []
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            reading = [group.create_task(reads_slowly(n, turn, begun)) for n in range(200)]
            await begun.wait()
            for _ in range(7):
                await asyncio.sleep(0.5)
                sizes.append(served.memory_kib())
            for task in reading:
                task.cancel()
        return sizes

    sizes = asyncio.run(watched())

    assert min(got) > 64 << 10
    assert max(sizes) - before <= 200 * CLIENT_KIB, (before, sizes)
    assert sizes[-1] - sizes[3] <= 200 * 32, (before, sizes)


@pytest.mark.usefixtures("lean")
def test_clients_that_never_read_are_dropped(served: Served) -> None:
    """Whatever it is that they do not read."""
    local, weed = (served.target(store, "big.bin") for store in ("local", "weed"))
    pipelined = served.request(served.target("local", "small.bin"))
    refused = served.request("/nothing", "X-Padding: " + "x" * 100)
    sent = {
        "a big file": served.request(local),
        "a big object": served.request(weed),
        "a range": served.request(weed, "Range: bytes=0-"),
        "a big file, with a request behind it": served.request(local) + pipelined,
        "many answers": pipelined * 300,
        "many refusals": refused * 3000,
    }
    for size in range(64 << 10, 512 << 10, 32 << 10):  # for one of them, the end waits in the proxy
        for way in ("keep-alive", "close"):
            headers = (f"Range: bytes=0-{size}", f"Connection: {way}")
            sent[f"the end of {size}, {way}"] = served.request(local, *headers)
    stalled = served.number("labelport_proxy_truncations_total", reason="stalled")
    connections = {}
    for name, requests in sent.items():
        connection = served.connect(receive_bytes=4 << 10)
        connection.settimeout(0.5)
        with suppress(TimeoutError):  # the proxy reads no more than it answers
            connection.sendall(requests)
        connections[name] = connection

    def held() -> set[str]:
        clients = served.clients()
        return {n for n, c in connections.items() if c.getsockname()[1] in clients}

    eventually(lambda: not held(), 2 * STALL_SECONDS + 6)
    assert held() == set()
    # Those of whole answers, which the ends of ranges are not.
    assert served.number("labelport_proxy_truncations_total", reason="stalled") >= stalled + 3
    for connection in connections.values():
        connection.close()


@STORES
@pytest.mark.usefixtures("lean")
def test_a_thousand_clients_at_once_each_get_their_object(served: Served, store: str) -> None:
    request = served.request(served.target(store, "small.bin"))

    async def gets(everybody: asyncio.Barrier) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        await everybody.wait()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readexactly(len(SMALL))
        await everybody.wait()  # nobody goes before all have theirs
        writer.close()
        await writer.wait_closed()
        return head.partition(b" ")[2][:3] + body

    async def everybody() -> list[bytes]:
        barrier = asyncio.Barrier(1000)
        async with asyncio.timeout(60):
            return await asyncio.gather(*(gets(barrier) for _ in range(1000)))

    assert set(asyncio.run(everybody())) == {b"200" + SMALL}


def test_pipelined_requests_are_answered_in_order(served: Served) -> None:
    asked = [("small.bin", SMALL), ("medium.bin", bytes(MEDIUM_BYTES)), ("small.bin", SMALL)]
    with served.connect() as connection, connection.makefile("rb") as stream:
        connection.sendall(b"".join(served.request(served.target("weed", key)) for key, _ in asked))

        assert [answer(stream)[2] for _ in asked] == [body for _, body in asked]


@STORES
def test_answers_without_a_body_leave_the_connection_usable(served: Served, store: str) -> None:
    """HEAD, 304, 412, 416 and 404, and after each a body where it begins."""
    target = served.target(store, "small.bin")
    with served.connect() as connection, connection.makefile("rb") as stream:

        def send(*headers: str, method: str = "GET", to: str = target) -> int:
            connection.sendall(served.request(to, *headers, method=method))
            status, fields, _ = answer(stream, method)
            connection.sendall(served.request(target))
            assert answer(stream)[::2] == (200, SMALL)
            assert "close" not in fields.get("Connection", "")
            return status

        connection.sendall(served.request(target))
        _, headers, _ = answer(stream)
        etag = headers["ETag"]
        assert send(method="HEAD") == 200
        assert send(f"If-None-Match: {etag}") == 304
        assert send(f"If-None-Match: {etag}", method="HEAD") == 304
        assert send('If-Match: "another"') == 412
        assert send("Range: bytes=999999-") == 416
        assert send(to=served.target(store, "missing.bin")) == 404
        assert send(to=served.target(store, "missing.bin"), method="HEAD") == 404


@pytest.fixture(scope="module")
def impatient(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A proxy whose clients have little time to ask."""
    folder = tmp_path_factory.mktemp("impatient")
    url = f"sqlite:///{shutil.copy(sqlite_template, folder / 'catalog.db')}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server, "_HEAD_SECONDS", 0.4)
        patch.setattr(server, "stall_seconds", 0.4)
        patch.setattr(bodies, "_BODY_SECONDS", 0.4)
        with proxy(Catalog(url), lambda _: LocalStore(folder, "media"), timeout=0.4) as running:
            yield running


def test_the_proxy_opens_as_many_files_as_it_may(served: Served) -> None:
    limits = Path(f"/proc/{served.pid}/limits").read_text()
    soft, hard = limits.partition("Max open files")[2].split()[:2]

    assert int(soft) == min(int(hard), 65_536)


LOG_IN = b"POST /session HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
ALIVE = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


def test_who_asks_too_much_at_once_is_dropped(impatient: Running) -> None:
    """However many requests a client sends at once, others do not wait for them."""
    place = ("127.0.0.1", urlsplit(impatient.url).port or 0)

    def ask_on() -> None:
        with socket.create_connection(place) as connection, suppress(ConnectionError):
            connection.sendall(b"GET / HTTP/1.1\r\n\r\n" * 100_000)
            while connection.recv(1 << 20):
                pass

    asking = threading.Thread(target=ask_on)
    asking.start()
    for _ in range(20):
        begun = time.monotonic()
        assert Client(impatient.url).send("GET", "/healthz").status == 200
        assert time.monotonic() - begun < 1
    asking.join(10)
    assert eventually(lambda: not impatient.server.server_state.connections)


def test_who_wants_the_connection_closed_and_does_not_read_is_dropped(
    sqlite_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much of an answer is left when it is complete for us."""
    monkeypatch.setattr(server, "stall_seconds", 0.4)
    url = f"sqlite:///{shutil.copy(sqlite_template, tmp_path / 'catalog.db')}"
    (tmp_path / "media").mkdir()
    sizes = range(32 << 10, 512 << 10, 12 << 10)
    for size in sizes:
        (tmp_path / "media" / f"{size}").write_bytes(bytes(size))
    with Catalog(url) as catalog, ExitStack() as stack:
        project_id = project(catalog, "Cats")
        storage(catalog, project_id, "media", "file://media", serve_any_key=True, presign=False)
        member = somebody(catalog, "member@example.org", project_id)
        running = stack.enter_context(
            proxy(Catalog(url), lambda _: LocalStore(tmp_path, "media"), timeout=0.4)
        )
        place = ("127.0.0.1", urlsplit(running.url).port or 0)
        for size in sizes:
            connection = stack.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(place)
            target = proxy_url("", "projects", project_id, f"file://media/{size}")
            fields = f"Authorization: Bearer {member.secret}\r\nConnection: close\r\n"
            connection.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\n{fields}\r\n".encode())

        assert eventually(lambda: running.server.server_state.total_requests == len(sizes))
        assert eventually(lambda: not running.server.server_state.connections)


@pytest.mark.parametrize(
    ("begun", "more"),
    [
        (b"GET /healthz?", b"a" * 1000),
        (b"GET /healthz HTTP/1.1\r\n", b"X-A: b\r\n" * 100),
        (b"GET /healthz HTTP/1.1\r\nX-A: ", b"a" * 1000),
        (ALIVE, b"\r\n" * 500),
        (LOG_IN + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X-A: b\r\n" * 100),
        (LOG_IN + b"Transfer-Encoding: chunked\r\n\r\n1;", b"a" * 1000),
    ],
    ids=["target", "fields", "a field", "empty lines", "trailers", "an extension of a chunk"],
)
def test_who_asks_without_end_is_dropped(impatient: Running, begun: bytes, more: bytes) -> None:
    """All of it would be kept until the request is complete, which it never is."""
    place = ("127.0.0.1", urlsplit(impatient.url).port or 0)
    with socket.create_connection(place) as connection, pytest.raises(ConnectionError):
        connection.sendall(begun)
        for _ in range(10_000):
            connection.sendall(more)

    assert Client(impatient.url).send("GET", "/healthz").status == 200


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /heal",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n",
        ALIVE + b"GET /healthz HTTP/1.1\r\nHo",
        ALIVE + b"\r\n",
        ALIVE[:-2] + b"Content-Length: 10\r\n\r\nab",
        LOG_IN + b"Content-Length: 100\r\n\r\n{",
    ],
    ids=[
        "nothing",
        "half a line",
        "half a head",
        "half of the next head",
        "an empty line before the next head",
        "half a body that nobody reads",
        "half a body",
    ],
)
def test_who_never_finishes_asking_is_dropped(impatient: Running, sent: bytes) -> None:
    """Even if a byte comes now and then."""
    connection = socket.create_connection(("127.0.0.1", urlsplit(impatient.url).port or 0))
    if sent.startswith(ALIVE):
        connection.sendall(ALIVE)
        with connection.makefile("rb") as stream:
            assert answer(stream)[0] == 200
    connection.sendall(sent.removeprefix(ALIVE))
    connection.settimeout(0.05)
    begun = time.monotonic()
    ended = False
    while not ended and time.monotonic() - begun < 3:
        try:
            ended = not connection.recv(4096)
            if sent.endswith((b"GET /heal", b"ab", b"{")):
                connection.sendall(b" ")
        except TimeoutError:
            continue
        except ConnectionError:
            ended = True
    connection.close()

    assert ended
