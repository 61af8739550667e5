"""What the proxy costs beside nginx, per CPU second: ``python benchmarks/proxy.py``.

One nginx serves files; a second one passes them on (``proxy_pass``, default buffers, one worker),
and so does `labelport-proxy` (one worker, a log line a request, access checked) with that nginx as
its S3 server. CPU seconds are those of the process that passes on. Needs Debian's nginx-light.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from labelport.catalog import Catalog, projects, storages, tokens, upgrading, users
from labelport.importing import import_storage
from labelport.model import Role
from labelport.resolving import proxy_url
from labelport.stores.local import LocalStore
from loading import Ask, Connection, load
from measuring import free_ports, process, responds

MIB = 1 << 20
BIG = 20 * MIB
RANGE = 7 * MIB
HUGE = 512 * MIB
SMALL_OBJECTS = 1_000
SLOW_CLIENTS = 200
TURNS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a third of the time")
    quick = parser.parse_args().quick
    if shutil.which("nginx", path=PATH) is None:
        sys.exit("nginx is not installed: apt-get install nginx-light")
    with tempfile.TemporaryDirectory(prefix="labelport-") as name, ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)
        keys = _make_files(folder / "files" / "media")
        upstream = stack.enter_context(nginx(folder, "upstream", _static(folder / "files")))
        plain = stack.enter_context(nginx(folder, "nginx", _passing(upstream.url)))
        ours = stack.enter_context(labelport(folder, upstream.url, keys))
        _compare(plain, ours, keys, 2.0 if quick else 6.0)
        _slow_clients(ours)


PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin"))


@dataclass(frozen=True)
class Server:
    """Something that serves, and the process whose CPU it takes."""

    name: str
    url: str
    pid: int
    targets: dict[str, str]  #: key → path and query
    redirects: Sequence[str] = ()
    headers: tuple[tuple[str, str], ...] = ()

    def ask(self, key: str, **headers: str) -> Ask:
        return Ask.get(self.targets.get(key, f"/media/{key}"), **dict(self.headers), **headers)

    def cpu(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def queued(self) -> int:
        """Bytes that the kernel holds in the process's sockets."""
        links = [os.readlink(fd) for fd in Path(f"/proc/{self.pid}/fd").iterdir()]
        mine = {link.removeprefix("socket:[").rstrip("]") for link in links}
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        queues = [row[4].split(":") for row in rows if row[9] in mine]
        return sum(int(sent, 16) + int(received, 16) for sent, received in queues)

    def resident(self) -> int:
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) << 10


def _compare(plain: Server, ours: Server, keys: Sequence[str], seconds: float) -> None:
    big, small = keys[0], keys[2:]
    chosen = random.Random(1)
    starts = [chosen.randrange(BIG - RANGE) for _ in range(50)]

    def whole(server: Server) -> list[Ask]:
        return [server.ask(big)]

    def ranges(server: Server) -> list[Ask]:
        return [server.ask(big, Range=f"bytes={s}-{s + RANGE - 1}") for s in starts]

    def objects(server: Server) -> list[Ask]:
        return [server.ask(key) for key in small]

    print("whole objects of 20 MiB and ranges of 7 MiB: MB a CPU second; ratio to nginx")
    for name, asks, clients, status in (
        ("whole, 1 client", whole, 1, b"200"),
        ("whole, 16 clients", whole, 16, b"200"),
        ("ranges, 16 clients", ranges, 16, b"206"),
    ):
        rates = [
            _measured(server, asks(server), clients, seconds, status, lambda done: done.bytes / 1e6)
            for server in (plain, ours)
        ]
        print(
            f"  {name:20} nginx {rates[0]:>7,.0f}   labelport {rates[1]:>7,.0f}"
            f"   {rates[1] / rates[0]:.2f}x",
            flush=True,
        )
    print("objects of 4 to 64 KiB, redirects: requests a CPU second, 16 clients; ratio to nginx")
    cases = (
        (plain, "nginx, objects", objects(plain), b"200"),
        (ours, "labelport, objects", objects(ours), b"200"),
        (
            ours,
            "labelport, redirects",
            [Ask.get(target, **dict(ours.headers)) for target in ours.redirects],
            b"303",
        ),
    )
    # In turns, for a machine's speed changes from one minute to the next.
    turns = [
        [
            _measured(server, asked, 16, seconds, status, lambda done: done.requests)
            for server, _, asked, status in cases
        ]
        for _ in range(TURNS)
    ]
    for (_, name, _, _), rates in zip(cases, zip(*turns, strict=True), strict=True):
        ratio = median(rate / turn[0] for rate, turn in zip(rates, turns, strict=True))
        print(
            f"  {name:20} {median(rates):>7,.0f}   {ratio:.2f}x"
            f"   ({min(rates):,.0f} to {max(rates):,.0f})",
            flush=True,
        )


def _measured(
    server: Server, asks: list[Ask], clients: int, seconds: float, status: bytes, amount: object
) -> float:
    load(server.url, asks, clients=clients, seconds=seconds / 4, status=status)
    before = server.cpu()
    done = load(server.url, asks, clients=clients, seconds=seconds, status=status)
    assert callable(amount)
    found: float = amount(done) / (server.cpu() - before)
    return found


def _slow_clients(server: Server) -> None:
    """So many clients that take a little of a large object now and then."""
    before = server.resident()
    with ExitStack() as stack:
        host, port = server.url.removeprefix("http://").split(":")
        clients = [
            stack.enter_context(Connection(host, int(port), receive_buffer=32 << 10))
            for _ in range(SLOW_CLIENTS)
        ]
        for client in clients:
            client.head(server.ask("huge.bin"))
        grown, queued = [], 0
        for _ in range(8):
            for client in clients:
                client.sip(48 << 10)
            time.sleep(0.5)
            grown.append((server.resident() - before) / SLOW_CLIENTS / 1024)
            queued = max(queued, server.queued())
    print(
        f"{SLOW_CLIENTS} slow clients of a 512 MiB object, KiB a client: in the process "
        f"{grown[0]:.0f}, 4 s later {grown[-1]:.0f}; queued in its sockets "
        f"{queued / SLOW_CLIENTS / 1024:.0f}"
    )


def _make_files(folder: Path) -> list[str]:
    folder.mkdir(parents=True)
    folder.parent.chmod(0o755)
    sizes = {"big.bin": BIG, "huge.bin": HUGE}
    chosen = random.Random(0)
    sizes |= {
        f"small/{number:05}.jpg": chosen.randrange(4 << 10, 64 << 10)
        for number in range(SMALL_OBJECTS)
    }
    (folder / "small").mkdir()
    for key, size in sizes.items():
        with (folder / key).open("wb") as file:
            file.truncate(size)
    return list(sizes)


@contextmanager
def nginx(folder: Path, name: str, server: str) -> Iterator[Server]:
    """An nginx with one worker."""
    (port,) = free_ports(1)
    config = folder / f"{name}.conf"
    config.write_text(
        f"""daemon off; worker_processes 1; pid {folder}/{name}.pid; error_log stderr error;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000; sendfile on;
  client_body_temp_path {folder}/{name}-body; proxy_temp_path {folder}/{name}-proxy;
  fastcgi_temp_path {folder}/{name}-f; uwsgi_temp_path {folder}/{name}-u;
  scgi_temp_path {folder}/{name}-s;
  {server.replace("PORT", str(port))}
}}
"""
    )
    program = shutil.which("nginx", path=PATH) or "nginx"
    url = f"http://127.0.0.1:{port}"
    command = [program, "-p", str(folder), "-c", str(config)]
    log = folder / f"{name}.log"
    with process(command, folder, signal.SIGTERM, lambda: responds(url), log=log) as master:
        children = Path(f"/proc/{master.pid}/task/{master.pid}/children").read_text().split()
        yield Server(name, url, int(children[0]), {})


def _static(root: Path) -> str:
    return f"server {{ listen 127.0.0.1:PORT; location / {{ root {root}; }} }}"


def _passing(upstream: str) -> str:
    address = upstream.removeprefix("http://")
    return (
        f"upstream files {{ server {address}; keepalive 64; keepalive_requests 1000000; }} "
        "server { listen 127.0.0.1:PORT; location / { proxy_pass http://files; "
        'proxy_http_version 1.1; proxy_set_header Connection ""; } }'
    )


@contextmanager
def labelport(folder: Path, upstream: str, keys: Sequence[str]) -> Iterator[Server]:
    """`labelport-proxy` with a project of a task for each object, streamed and redirected."""
    url = f"sqlite:///{folder}/catalog.db"
    with Catalog(url) as catalog:
        upgrading.upgrade(catalog)
        streamed = _project(catalog, folder, "streamed", presign=False)
        redirected = _project(catalog, folder, "redirected", presign=True)
        with catalog.begin() as connection:
            user = users.add(connection, "benchmark@example.org")
            for project_id in (streamed, redirected):
                users.join(connection, user.id, project_id, Role.ANNOTATOR)
            _, secret = tokens.create(connection, user.id, name="benchmark", seconds=None)
        with catalog.read() as connection:
            ids = {
                project_id: dict(
                    connection.exec_driver_sql(
                        "SELECT o.key, t.id FROM tasks t JOIN import_objects o "
                        f"ON o.id = t.import_object_id WHERE t.project_id = {project_id}"
                    ).all()
                )
                for project_id in (streamed, redirected)
            }
    (port,) = free_ports(1)
    s3 = {"conn_type": "aws", "login": "key", "password": "secret"}
    s3["extra"] = {"endpoint_url": upstream, "region_name": "us-east-1"}  # type: ignore[assignment]
    env = {
        **os.environ,
        "LABELPORT_PROXY_SECRET": "benchmark" * 8,
        "LABELPORT_CATALOG_URL": url,
        "LABELPORT_PROXY_PORT": str(port),
        "LABELPORT_PROXY_REQUESTS_PER_SECOND": "0",
        "LABELPORT_PROXY_STREAMS_PER_USER": "0",
        "AIRFLOW_CONN_FILES": json.dumps(s3),
        "AIRFLOW_HOME": str(folder / "airflow"),
    }
    base = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "labelport_proxy"]
    log = folder / "labelport.log"
    with process(
        command, folder, signal.SIGTERM, lambda: responds(f"{base}/readyz"), env=env, log=log
    ) as child:
        targets = {
            key: proxy_url("", "tasks", ids[streamed][key], f"s3://media/{key}") for key in keys
        }
        redirects = [
            proxy_url("", "tasks", number, f"s3://media/{key}")
            for key, number in ids[redirected].items()
        ]
        yield Server(
            "labelport",
            base,
            child.pid,
            targets,
            redirects,
            (("Authorization", f"Bearer {secret}"),),
        )


def _project(catalog: Catalog, folder: Path, title: str, *, presign: bool) -> int:
    """A project whose storage is the upstream's bucket, imported from its folder."""
    with catalog.begin() as connection:
        project = projects.add(connection, title)
        storage = storages.add(
            connection,
            project.id,
            title,
            "s3://media/",
            conn_id="files",
            use_blob_urls=True,
            presign=presign,
        )
    here = LocalStore(folder / "files", "media")
    state = import_storage(catalog, lambda _: here, storage, job="benchmark")
    assert state.status == "completed", state.traceback
    return project.id


if __name__ == "__main__":
    main()
