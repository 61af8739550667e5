"""How fast tasks are made, and in how much memory: ``python benchmarks/importing.py [--quick]``.

Every measurement is a process of its own; ratios are against `baseline` on the same database in
the same run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from baseline import tasks_per_second
from generated import GeneratedStore
from labelport.catalog import Catalog, projects, storages, upgrading
from labelport.importing import import_storage
from labelport.model import Storage, SyncState
from labelport.stores import Store
from labelport.stores.local import LocalStore
from measuring import S3Server, databases, keys, measured, run, s3, tell, weed_server

ROW = '{{"text": "row number {0} of a file with some words in it", "image": "s3://b/{0}.jpg"}}'


def main() -> None:
    arguments = _arguments()
    if arguments.child:
        print(json.dumps(_child(**json.loads(arguments.child))))
        return
    scale = 10 if arguments.quick else 1
    with tempfile.TemporaryDirectory(prefix="labelport-") as folder:
        for name, url in databases(Path(folder)):
            _measure_database(name, url, Path(folder), scale)
        _measure_objects(Path(folder), scale)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


def _measure_database(name: str, url: str, folder: Path, scale: int) -> None:
    with Catalog(url) as catalog:
        upgrading.upgrade(catalog)
        baseline = tasks_per_second(catalog, 4_000 // scale)
    print(f"\n{name}: one ORM transaction per task: {baseline:,.0f} tasks/s")
    media = 200_000 // scale
    first = _run(url, "media", source="generated", count=media)
    tell(f"import of {media:,} media keys", first, media, baseline)
    again = _run(url, "media", source="generated", count=media)
    tell("re-sync of the same keys", again, media)
    again["seconds"] -= asyncio.run(_list(GeneratedStore(media)))
    tell("… without making up the listing", again, media)
    for count in (100_000 // scale, 1_000_000 // scale):
        tell(f"{count:,} keys", _run(url, f"flat{count}", source="generated", count=count), count)
    rows = 1_000_000 // scale
    _row_file(folder / "lines" / "rows.jsonl", rows)
    tell(f"JSONL of {rows:,} rows", _run(url, "lines", source=str(folder), count=rows), rows)


def _measure_objects(folder: Path, scale: int) -> None:
    url = f"sqlite:///{folder}/objects.db"
    with Catalog(url) as catalog:
        upgrading.upgrade(catalog)
    print("\nSeaweedFS on loopback, SQLite")
    with weed_server() as server:
        count = 5_000 // scale
        asyncio.run(_fill(server, "tasks", count))
        run = _run(url, "objects", source=server.endpoint, count=count, server=keys(server))
        tell(f"{count:,} one-task JSON objects", run, count)
        listing = _run(url, "objects", source=server.endpoint, count=count, server=keys(server))
        tell("re-sync of them (listing and comparing)", listing, count)
        listed = 20_000 // scale
        asyncio.run(_fill(server, "listed", listed))
        store = s3("objects", server.endpoint, keys(server))
        seconds = asyncio.run(_list(store, "listed/"))
        print(f"  {f'listing of {listed:,} keys':42} {listed / seconds:>10,.0f}/s")


def _row_file(path: Path, rows: int) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("w") as file:
        file.writelines(ROW.format(number) + "\n" for number in range(rows))


async def _fill(server: S3Server, folder: str, count: int) -> None:
    store = s3("objects", server.endpoint, keys(server))
    with suppress(server.client().exceptions.BucketAlreadyOwnedByYou):
        server.client().create_bucket(Bucket="objects")
    gate = asyncio.Semaphore(32)

    async def put(number: int) -> None:
        async with gate:
            await store.put(f"{folder}/{number:06}.json", ROW.format(number).encode())

    await asyncio.gather(*(put(number) for number in range(count)))
    await store.close()


async def _list(store: Store, prefix: str = "") -> float:
    begun = time.perf_counter()
    async for _ in store.pages(prefix):
        pass
    seconds = time.perf_counter() - begun
    await store.close()
    return seconds


def _run(url: str, name: str, **spec: object) -> dict[str, float]:
    return run(__file__, url=url, name=name, **spec)


def _child(
    url: str, name: str, source: str, count: int, server: dict[str, str] | None = None
) -> dict[str, float]:
    with Catalog(url) as catalog:
        storage, open_store = _source(catalog, name, source, count, server)
        begun = time.perf_counter()
        state = import_storage(catalog, open_store, storage, job="benchmark")
        seconds = time.perf_counter() - begun
    _check(state, count)
    return measured(seconds)


def _check(state: SyncState, count: int) -> None:
    counters = state.counters
    assert state.status == "completed", state.traceback
    assert counters.created + counters.existed == count, counters


def _source(
    catalog: Catalog, name: str, source: str, count: int, server: dict[str, str] | None
) -> tuple[Storage, Callable[[Storage], Store]]:
    if source == "generated":
        storage = _storage(catalog, name, "memory://generated/", blob=True)
        return storage, lambda _: GeneratedStore(count)
    if server:
        storage = _storage(catalog, name, "s3://objects/tasks", blob=False)
        return storage, lambda _: s3("objects", source, server)
    storage = _storage(catalog, name, f"file://{name}/", blob=False)
    return storage, lambda _: LocalStore(source, name)


def _storage(catalog: Catalog, name: str, location: str, *, blob: bool) -> Storage:
    with catalog.begin() as connection:
        for storage in storages.list_all(connection):
            if storage.name == name:
                return storage
        project = projects.add(connection, name)
        return storages.add(connection, project.id, name, location, use_blob_urls=blob)


if __name__ == "__main__":
    main()
