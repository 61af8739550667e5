"""The storage proxy for tests: a real server on loopback, in a thread or a process of its own."""

from __future__ import annotations

import http.client
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from starlette.datastructures import Secret

from demo.processes import free_ports, process, responds
from labelport.catalog import Catalog, access, projects, tokens, users
from labelport.catalog import storages as storage_rows
from labelport.catalog.schema import tasks
from labelport.model import Role, Storage
from labelport.resolving import Kind, proxy_url
from labelport.stores import Store
from labelport_proxy import app, server
from labelport_proxy.settings import Settings

SECRET = "a-secret-for-tests-of-forty-characters-x"


@dataclass(frozen=True)
class Answer:
    """What a client got."""

    status: int
    headers: Mapping[str, str]  #: names in lower case
    body: bytes


@dataclass
class Client:
    """Asks one proxy, a connection for each request unless one is handed in."""

    url: str
    headers: dict[str, str] = field(default_factory=dict)  #: of every request

    def send(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        place = urlsplit(self.url)
        connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=30)
        try:
            connection.request(method, target, body, {**self.headers, **(headers or {})})
            got = connection.getresponse()
            fields = {name.lower(): value for name, value in got.getheaders()}
            return Answer(got.status, fields, got.read())
        finally:
            connection.close()

    def get(
        self, kind: Kind, number: int, uri: str, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """An object of a task or project."""
        return self.send("GET", proxy_url("", kind, number, uri), headers)


@dataclass(frozen=True)
class Running:
    """A server in a thread of this process."""

    url: str
    server: uvicorn.Server

    def as_user(self, secret: str) -> Client:
        return Client(self.url, {"Authorization": f"Bearer {secret}"})


def settings(**changes: Any) -> Settings:
    """The defaults, but for *changes*; no limits for a user, for tests are many users at once."""
    given: dict[str, Any] = {"requests_per_second": 0.0, "access_seconds": 0.0, **changes}
    return Settings(secret=Secret(SECRET), **given)


@contextmanager
def proxy(
    catalog: Catalog, opener: Callable[[Storage], Store] | None = None, **changes: Any
) -> Iterator[Running]:
    """The proxy on *catalog* with stores from *opener*; it closes the catalog at its end."""
    made = settings(**changes)
    server.socket_buffer = made.socket_buffer
    config = uvicorn.Config(
        app.create(made, catalog, opener),
        port=0,
        http=server.Protocol,
        loop="uvloop",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=made.keep_alive_seconds,
        timeout_graceful_shutdown=1,
    )
    serving = uvicorn.Server(config)
    thread = threading.Thread(target=serving.run, daemon=True)
    thread.start()
    try:
        deadline = time.monotonic() + 30
        while not serving.started:
            assert thread.is_alive() and time.monotonic() < deadline, "the proxy did not start"
            time.sleep(0.01)
        port = serving.servers[0].sockets[0].getsockname()[1]
        yield Running(f"http://127.0.0.1:{port}", serving)
    finally:
        serving.should_exit = True
        thread.join(30)


@contextmanager
def proxy_process(
    catalog_url: str, folder: Path, environment: Mapping[str, str] | None = None
) -> Iterator[tuple[Client, Any]]:
    """``labelport-proxy`` as an operator runs it: a client of it, and the process."""
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    env = {
        **os.environ,
        "LABELPORT_PROXY_SECRET": SECRET,
        "LABELPORT_CATALOG_URL": catalog_url,
        "LABELPORT_PROXY_PORT": str(port),
        "AIRFLOW_HOME": str(folder / "airflow"),
        **(environment or {}),
    }
    command = [sys.executable, "-m", "labelport_proxy"]
    with process(command, folder, signal.SIGTERM, lambda: responds(f"{url}/readyz"), env=env) as p:
        yield Client(url), p


@dataclass(frozen=True)
class Somebody:
    """A user with a token."""

    id: int
    email: str
    secret: str


def somebody(
    catalog: Catalog, email: str, *project_ids: int, role: Role = Role.ANNOTATOR
) -> Somebody:
    """A new user, a member of some projects."""
    with catalog.begin() as connection:
        user = users.add(connection, email)
        for project_id in project_ids:
            users.join(connection, user.id, project_id, role)
        _, secret = tokens.create(connection, user.id, name="tests", seconds=None)
    return Somebody(user.id, email, secret)


def project(catalog: Catalog, title: str) -> int:
    """A new project's id."""
    with catalog.begin() as connection:
        return projects.add(connection, title).id


def storage(catalog: Catalog, project_id: int, name: str, location: str, **more: Any) -> Storage:
    """A new import storage."""
    with catalog.begin() as connection:
        return storage_rows.add(connection, project_id, name, location, **more)


def task(catalog: Catalog, project_id: int, data: object) -> int:
    """A new task's id; no storage brought it."""
    import json

    with catalog.begin() as connection:
        inner_id = connection.exec_driver_sql("SELECT coalesce(max(inner_id), 0) + 1 FROM tasks")
        text = json.dumps(data)
        values = {
            "project_id": project_id,
            "inner_id": inner_id.scalar_one(),
            "data": text if connection.dialect.name == "sqlite" else data,
        }
        found = connection.scalar(tasks.insert().values(values).returning(tasks.c.id))
        assert found is not None and access.task(connection, found) is not None
        return int(found)
