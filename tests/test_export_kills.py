"""``kill -9`` during an export: the ledger claims nothing that is not there."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from catalogs import any_storage, import_tasks
from labelport.catalog import Catalog, schema, storages
from labelport.model import Direction, Status

ANNOTATIONS = 12_000
WORKER = """
import sys
from labelport.catalog import Catalog, storages
from labelport.errors import SyncRefused
from labelport.exporting import ExportOptions, export_storage
from labelport.stores.local import LocalStore
url, root = sys.argv[1:]
with Catalog(url) as catalog:
    with catalog.read() as connection:
        storage = storages.get(connection, "target")
    options = ExportOptions(ping_seconds=0.1, lease_seconds=0.5)
    while True:
        try:
            export_storage(catalog, lambda _: LocalStore(root, "out"), storage, job="kill",
                           options=options)
            break
        except SyncRefused:
            pass
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "files" / "out").mkdir(parents=True)
    return tmp_path / "files"


def claimed(catalog: Catalog) -> dict[str, str]:
    """Key and etag of all that the ledger says is exported."""
    columns = schema.export_links.c
    with catalog.read() as connection:
        query = sa.select(columns.key, columns.etag).where(columns.object_exists)
        return {row[0]: row[1] for row in connection.execute(query)}


def test_a_killed_export_claims_only_what_is_there_and_is_finished_by_the_next(
    catalog: Catalog, root: Path
) -> None:
    with catalog.begin() as connection:
        source = any_storage(connection, "source", location="memory://source/")
        import_tasks(connection, source, [f"{n:05}" for n in range(ANNOTATIONS)], annotated=True)
        storage = any_storage(
            connection, "target", location="file://out/", direction=Direction.EXPORT
        )
    url = catalog.engine.url.render_as_string(hide_password=False)

    for _ in range(3):
        goal = len(claimed(catalog)) + random.randint(1, ANNOTATIONS // 6)
        with subprocess.Popen([sys.executable, "-c", WORKER, url, str(root)]) as worker:
            while len(claimed(catalog)) < goal:
                assert worker.poll() is None, "the export ended before it could be killed"
                time.sleep(random.uniform(0, 0.05))
            worker.kill()
        there = {path.name for path in (root / "out").iterdir()}
        assert claimed(catalog).keys() <= there
    subprocess.run([sys.executable, "-c", WORKER, url, str(root)], check=True)

    with catalog.read() as connection:
        assert storages.state(connection, storage.id).status is Status.COMPLETED
    assert len(claimed(catalog)) == ANNOTATIONS
