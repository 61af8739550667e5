"""How fast annotations become objects, in how much memory: ``python benchmarks/exporting.py``.

Every measurement is a process of its own; ratios are against `baseline_export` on the same database
and into the same S3 server, in the same run. With ``--quick`` a tenth of everything.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import baseline_export
from labelport.catalog import Catalog, projects, storages, upgrading
from labelport.exporting import ExportOptions, Selection, export_storage
from labelport.importing import import_storage
from labelport.model import Direction, Storage
from labelport.stores import Store
from labelport.stores.local import LocalStore
from labelport.stores.memory import MemoryStore
from measuring import S3Server, databases, keys, measured, run, s3, tell, weed_server


def main() -> None:
    arguments = _arguments()
    if arguments.child:
        print(json.dumps(_child(**json.loads(arguments.child))))
        return
    scale = 10 if arguments.quick else 1
    with tempfile.TemporaryDirectory(prefix="labelport-") as folder, weed_server() as server:
        server.client().create_bucket(Bucket="exports")
        for name, url in databases(Path(folder)):
            _measure(name, url, Path(folder), server, scale)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


def _measure(name: str, url: str, folder: Path, server: S3Server, scale: int) -> None:
    few, some, many = 3_000 // scale, 10_000 // scale, 100_000 // scale
    with Catalog(url) as catalog:
        upgrading.upgrade(catalog)
        for project, count in (("few", few), ("some", some), ("many", many)):
            _annotate(catalog, folder, project, count)
    place: dict[str, Any] = {"endpoint": server.endpoint, "server": keys(server)}
    print(f"\n{name}")
    plain = _run(url, "few", few, "boto3", **place)
    baseline = few / plain["seconds"]
    tell("eight boto3 threads, into SeaweedFS", plain, few)
    tell("… into nothing", _run(url, "few", few, "boto3"), few)
    ours = _run(url, "some", some, "ours", **place)
    tell(f"{some:,} annotations into SeaweedFS", ours, some, baseline)
    for what, description in (
        ("ours", f"{many:,} annotations into nothing"),
        ("again", "… unchanged, all compared"),
        ("all", "… written again, all of them"),
    ):
        tell(description, _run(url, "many", many, what), many, baseline)


def _run(url: str, project: str, count: int, what: str, **place: Any) -> dict[str, float]:
    return run(__file__, url=url, project=project, count=count, what=what, **place)


def _child(
    url: str,
    project: str,
    count: int,
    what: str,
    endpoint: str | None = None,
    server: dict[str, str] | None = None,
) -> dict[str, float]:
    with Catalog(url) as catalog:
        exporter = "boto3" if what == "boto3" else "ours"
        storage = _storage(catalog, project, f"{project}-{exporter}-{bool(endpoint)}")
        if what == "boto3":
            put = _boto3_put(endpoint, server) if endpoint and server else _no_put
            done, seconds = baseline_export.export(catalog, storage, put)
            assert done == count, done
            return measured(seconds)
        store = s3("exports", endpoint, server) if endpoint and server else Nothing()
        return measured(_export(catalog, storage, store, count, what))


def _export(catalog: Catalog, storage: Storage, store: Store, count: int, what: str) -> float:
    select = Selection.ALL if what == "all" else Selection.CHANGED
    begun = time.perf_counter()
    state = export_storage(
        catalog, lambda _: store, storage, job="benchmark", options=ExportOptions(select)
    )
    seconds = time.perf_counter() - begun
    assert state.status == "completed", state.traceback
    counters = state.counters
    written = 0 if what == "again" else count
    assert counters.created + counters.updated == written, counters
    assert counters.existed == count - written, counters
    if isinstance(store, Nothing):
        assert store.puts == written, store.puts
    return seconds


class Nothing(MemoryStore):
    """Takes objects and forgets them, so that only the engine's memory is measured."""

    def __init__(self) -> None:
        super().__init__("nothing")
        self.puts = 0

    async def put(self, key: str, body: bytes, **options: Any) -> str:
        self.puts += 1
        return hashlib.md5(body, usedforsecurity=False).hexdigest()


def _no_put(key: str, body: bytes) -> object:
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


def _boto3_put(endpoint: str, server: dict[str, str]) -> Callable[[str, bytes], object]:
    client = S3Server(endpoint, server["key"], server["secret"]).client()

    def put(key: str, body: bytes) -> object:
        return client.put_object(Bucket="exports", Key=key, Body=body)

    return put


def _annotate(catalog: Catalog, folder: Path, project: str, count: int) -> None:
    """A project with *count* tasks that have an annotation each, of some 500 bytes."""
    file = folder / project / "rows.jsonl"
    file.parent.mkdir(exist_ok=True)
    with file.open("w") as rows:
        rows.writelines(json.dumps(_row(number)) + "\n" for number in range(count))
    with catalog.begin() as connection:
        projects.add(connection, project)
        source = storages.add(
            connection,
            projects.get(connection, project).id,
            f"{project}-source",
            f"file://{project}/",
        )
    state = import_storage(
        catalog, lambda _: LocalStore(str(folder), project), source, job="benchmark"
    )
    assert state.counters.created == count, state.traceback


def _row(number: int) -> dict[str, object]:
    boxes = [
        {
            "from_name": "box",
            "to_name": "image",
            "type": "rectanglelabels",
            "value": {"x": x, "y": number % 90, "width": 9.5, "height": 7.25, "labels": ["Car"]},
        }
        for x in (10, 40, 70)
    ]
    annotation = {"result": boxes, "completed_by": f"annotator{number % 7}@example.org"}
    return {"data": {"image": f"s3://bucket/{number:08}.jpg"}, "annotations": [annotation]}


def _storage(catalog: Catalog, project: str, name: str) -> Storage:
    with catalog.begin() as connection:
        for storage in storages.list_all(connection):
            if storage.name == name:
                return storage
        return storages.add(
            connection,
            projects.get(connection, project).id,
            name,
            f"s3://exports/{name}",
            Direction.EXPORT,
        )


if __name__ == "__main__":
    main()
