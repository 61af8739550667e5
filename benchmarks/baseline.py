"""What a plain importer does: one ORM transaction per task, into the same tables as ours."""

from __future__ import annotations

import time
from types import SimpleNamespace

import sqlalchemy as sa
from sqlalchemy.orm import Session, registry

from labelport.catalog import Catalog, projects, schema, storages


class Project(SimpleNamespace):
    """A row of ``projects``."""


class Object(SimpleNamespace):
    """A row of ``import_objects``."""


class Task(SimpleNamespace):
    """A row of ``tasks``."""


_mapping = registry(metadata=schema.metadata)
_mapping.map_imperatively(Project, schema.projects)
_mapping.map_imperatively(Object, schema.import_objects)
_mapping.map_imperatively(Task, schema.tasks)


def tasks_per_second(catalog: Catalog, tasks: int) -> float:
    """Import *tasks* media keys, one by one: is the key known? No: object and task, commit."""
    with catalog.begin() as connection:
        project = projects.add(connection, "baseline")
        storage = storages.add(connection, project.id, "baseline", "memory://baseline/")
    begun = time.perf_counter()
    for number in range(tasks):
        with Session(catalog.engine) as session, session.begin():
            _import(session, project.id, storage.id, f"img/{number:08}.jpg")
    return tasks / (time.perf_counter() - begun)


def _import(session: Session, project_id: int, storage_id: int, key: str) -> None:
    columns = schema.import_objects.c
    known = sa.select(columns.id).where(columns.storage_id == storage_id, columns.key == key)
    if session.scalar(known) is not None:
        return
    project = session.get_one(Project, project_id)
    found = Object(storage_id=storage_id, key=key, state="done", etag="etag", size=1_000)
    session.add(found)
    session.flush()
    uri = f"s3://bucket/{key}"
    text = f'{{"$undefined$": "{uri}"}}'
    postgresql = session.get_bind().dialect.name == "postgresql"
    session.add(
        Task(
            project_id=project_id,
            inner_id=project.next_inner_id,
            data={"$undefined$": uri} if postgresql else text,
            import_object_id=found.id,
        )
    )
    project.next_inner_id += 1
