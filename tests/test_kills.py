"""``kill -9`` at random moments: at the end every task is there, and none twice."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

import kill_worker
from catalogs import any_storage
from labelport.catalog import Catalog, schema

#: Of each kind and database: 24 in all.
KILLS = 4


def start(url: str, kind: str) -> subprocess.Popen[str]:
    """A worker that is about to begin."""
    worker = subprocess.Popen(
        [sys.executable, kill_worker.__file__, url, "killed", kind],
        cwd=Path(kill_worker.__file__).parent,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert worker.stdout is not None
    assert worker.stdout.readline() == "ready\n"
    return worker


def saved(catalog: Catalog) -> int:
    with catalog.read() as connection:
        number: int = connection.scalar(sa.select(sa.func.count()).select_from(schema.tasks))
    return number


@pytest.mark.parametrize("kind", ["media", "jsonl", "array"])
def test_a_killed_import_loses_and_repeats_nothing(catalog: Catalog, kind: str) -> None:
    expected = kill_worker.OBJECTS if kind == "media" else kill_worker.ROWS
    url = catalog.engine.url.render_as_string(hide_password=False)
    with catalog.begin() as connection:
        any_storage(
            connection, "killed", location="memory://killed/", use_blob_urls=kind == "media"
        )
    kills, progress = 0, [0]

    while kills < KILLS:
        with start(url, kind) as worker:
            goal = progress[-1] + random.randint(1, expected // (KILLS + 2))
            while worker.poll() is None and saved(catalog) < goal:
                time.sleep(random.uniform(0, 0.05))  # any moment of a batch, not only its end
            assert worker.poll() is None, "the worker ended before it could be killed"
            worker.kill()
        kills += 1
        progress.append(saved(catalog))
    with start(url, kind) as worker:
        assert worker.wait() == 0

    assert progress == sorted(progress)
    assert saved(catalog) == expected
    with catalog.read() as connection:
        view = schema.import_links
        distinct = sa.select(view.c.key, view.c.row_index).distinct().subquery()
        assert connection.scalar(sa.select(sa.func.count()).select_from(distinct)) == expected
