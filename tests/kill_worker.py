"""One import in a process of its own, to be killed: ``kill_worker.py CATALOG_URL STORAGE KIND``.

The bucket is made anew, and equal, in every process. Exit status 0: the sync completed.
"""

from __future__ import annotations

import asyncio
import sys
import time

from labelport.catalog import Catalog, storages
from labelport.errors import SyncRefused
from labelport.importing import ImportOptions, import_storage
from labelport.model import Status
from labelport.stores.memory import MemoryStore

BUCKET = "killed"
OBJECTS = 120_000
ROWS = 120_000


async def fill(kind: str) -> None:
    store = MemoryStore(BUCKET)
    rows = [f'{{"n": {n}, "text": "row number {n}"}}' for n in range(ROWS)]
    if kind == "media":
        for n in range(OBJECTS):
            await store.put(f"img/{n:06}.jpg", b"x")
    elif kind == "jsonl":
        await store.put("rows.jsonl", "\n".join(rows).encode())
    else:
        await store.put("rows.json", ("[" + ", ".join(rows) + "]").encode())


def main(url: str, name: str, kind: str) -> int:
    asyncio.run(fill(kind))
    options = ImportOptions(ping_seconds=0.1, lease_seconds=0.5)
    with Catalog(url) as catalog:
        with catalog.read() as connection:
            storage = storages.get(connection, name)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            try:
                state = import_storage(
                    catalog, lambda _: MemoryStore(BUCKET), storage, job="kill", options=options
                )
            except SyncRefused:
                time.sleep(0.05)  # the lease of the worker that was killed has to run out
                continue
            return 0 if state.status is Status.COMPLETED else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
