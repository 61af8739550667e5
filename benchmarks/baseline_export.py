"""What a plain exporter does: eight threads, boto3, one ORM statement per annotation."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session, registry

from labelport.catalog import Catalog, schema
from labelport.model import Storage

THREADS = 8


class Link(SimpleNamespace):
    """A row of ``export_links``."""


registry(metadata=schema.metadata).map_imperatively(Link, schema.export_links)

#: Given a key and a body, writes an object.
PutObject = Callable[[str, bytes], object]


def export(catalog: Catalog, storage: Storage, put: PutObject) -> tuple[int, float]:
    """Write every annotation of *storage*'s project; how many, and in how many seconds."""
    begun = time.perf_counter()
    count = 0
    with ThreadPoolExecutor(THREADS) as threads:
        for rows in _pages(catalog, storage.project_id):
            count += sum(threads.map(lambda row: _save(catalog, storage, put, row), rows))
    return count, time.perf_counter() - begun


def _pages(catalog: Catalog, project_id: int) -> Iterator[list[dict[str, Any]]]:
    """The annotations with their tasks' data, a thousand at a time: the baseline reads cheaply."""
    annotations, tasks = schema.annotations, schema.tasks
    query = (
        sa.select(annotations, sa.cast(tasks.c.data, sa.Text).label("data"))
        .join(tasks, tasks.c.id == annotations.c.task_id)
        .where(annotations.c.project_id == project_id)
        .order_by(annotations.c.id)
    )
    with catalog.read() as connection:
        rows = [dict(row) for row in connection.execute(query).mappings()]
    for start in range(0, len(rows), 1_000):
        yield rows[start : start + 1_000]


def _save(catalog: Catalog, storage: Storage, put: PutObject, row: dict[str, Any]) -> int:
    """One annotation: JSON, object, link, commit."""
    key = f"{storage.folder}{row['id']}"
    row["task"] = {"id": row["task_id"], "data": json.loads(row.pop("data"))}
    if isinstance(row["result"], str):
        row["result"] = json.loads(row["result"])
    put(key, json.dumps(row, default=str).encode())
    with Session(catalog.engine) as session, session.begin():
        make = postgresql.insert if catalog.engine.dialect.name == "postgresql" else sqlite.insert
        link = make(Link).values(
            storage_id=storage.id,
            annotation_id=row["id"],
            task_id=row["task_id"],
            key=key,
            object_exists=True,
            attempts=1,
        )
        session.execute(
            link.on_conflict_do_update(
                index_elements=["storage_id", "annotation_id"],
                set_={"key": link.excluded.key, "object_exists": True},
            )
        )
    return 1
