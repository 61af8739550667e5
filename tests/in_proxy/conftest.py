"""Buckets that a proxy serves, folders and SeaweedFS's, each with a member who may see all."""

from __future__ import annotations

import itertools
import shutil
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from labelport.catalog import Catalog
from labelport.model import Storage
from labelport.stores import Store
from labelport.stores._http import HttpStore
from labelport.stores.aws_credentials import AwsCredentials, FixedCredentials
from labelport.stores.local import LocalStore
from labelport.stores.s3 import S3Dialect
from labelport_proxy.app import transport_of
from proxies import Answer, Client, Running, project, proxy, settings, somebody, storage
from servers import S3Server

#: Opens a place of a kind, ``local`` or ``weed``; keywords are the storage's settings.
OpenPlace = Callable[..., "Place"]

_emails = (f"member-{number}@example.org" for number in itertools.count())


class Counting:
    """A store that counts what it is asked for."""

    def __init__(self, store: Store, calls: Counter[str]) -> None:
        self._store = store
        self._calls = calls

    def __getattr__(self, name: str) -> Any:
        self._calls[name] += 1
        return getattr(self._store, name)


@dataclass
class Place:
    """A bucket in a store, a project whose storage it is, and a member of that."""

    storage: Storage
    client: Client  #: the member's
    put: Callable[[str, bytes], None]
    calls: Counter[str] = field(default_factory=Counter)  #: of the store, by the proxy

    def get(
        self, key: str, headers: Mapping[str, str] | None = None, client: Client | None = None
    ) -> Answer:
        """An object of the project."""
        asking = client or self.client
        return asking.get("projects", self.storage.project_id, self.storage.uri(key), headers)


@dataclass
class Site:
    """A running proxy, and the catalog as its operator sees it."""

    running: Running
    url: str  #: the catalog's
    catalog: Catalog
    stores: dict[int, Callable[[], Store]]

    def member(self, *project_ids: int, **more: Any) -> Client:
        """Somebody new who is in these projects."""
        new = somebody(self.catalog, next(_emails), *project_ids, **more)
        return self.running.as_user(new.secret)


@contextmanager
def site(template: Path, folder: Path, **changes: Any) -> Iterator[Site]:
    """A proxy on an empty catalog in *folder*, with other settings than the defaults."""
    url = f"sqlite:///{shutil.copy(template, folder / f'{uuid.uuid4().hex}.db')}"
    stores: dict[int, Callable[[], Store]] = {}
    with (
        Catalog(url) as catalog,
        proxy(Catalog(url), lambda storage: stores[storage.id](), **changes) as running,
    ):
        yield Site(running, url, catalog, stores)


@pytest.fixture(scope="session")
def small_site(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A proxy that serves at most 1,000 bytes of a range."""
    with site(sqlite_template, tmp_path_factory.mktemp("site"), max_range_size=1000) as opened:
        yield opened


@pytest.fixture(scope="session")
def open_place(
    request: pytest.FixtureRequest, small_site: Site, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OpenPlace]:
    """Makes a new, empty bucket, and its storage in a project of its own."""
    with ExitStack() as stack:

        def opened(kind: str, **given: Any) -> Place:
            bucket = f"place-{uuid.uuid4().hex[:12]}"
            project_id = project(small_site.catalog, bucket)
            more = {"serve_any_key": True, "presign": False, **given}
            if kind == "local":
                root = tmp_path_factory.mktemp("root")
                made = storage(small_site.catalog, project_id, bucket, f"file://{bucket}", **more)
                put, store = _folder(root, bucket)
            else:
                server: S3Server = request.getfixturevalue("weed")
                made = storage(small_site.catalog, project_id, bucket, f"s3://{bucket}", **more)
                put, store = _bucket(server, bucket, stack)
            place = Place(made, small_site.member(project_id), put)
            small_site.stores[made.id] = lambda: Counting(store(), place.calls)
            return place

        yield opened


def _folder(root: Path, bucket: str) -> tuple[Callable[[str, bytes], None], Callable[[], Store]]:
    (root / bucket).mkdir()

    def put(key: str, body: bytes) -> None:
        path = root / bucket / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)

    return put, lambda: LocalStore(root, bucket)


def _bucket(
    server: S3Server, bucket: str, stack: ExitStack
) -> tuple[Callable[[str, bytes], None], Callable[[], Store]]:
    client = server.client()
    stack.callback(client.close)
    client.create_bucket(Bucket=bucket)
    credentials = AwsCredentials(server.access_key_id, server.secret_access_key)
    dialect = S3Dialect(bucket, FixedCredentials(credentials), endpoint=server.endpoint)

    def put(key: str, body: bytes) -> None:
        client.put_object(Bucket=bucket, Key=key, Body=body)

    return put, lambda: HttpStore(dialect, transport_of(settings()))
