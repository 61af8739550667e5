"""What ``--json`` answers. Fields may be added and never change; times are ISO 8601 in UTC.

===========================  =====================================================================
``projects add``             a project
``projects list``            an array of projects
``users add``                a user
``users activate``           a user
``users deactivate``         a user
``users list``               an array of users
``users show``               a user with ``memberships``
``users remove``             ``{"removed": id}``
``users join``               a membership
``users leave``              ``{"user_id": id, "left": project id}``
``tokens add``               a token with its ``secret``
``tokens list``              an array of tokens
``tokens revoke``            ``{"revoked": id}``
``storages add|update|show`` a storage, with its latest sync
``storages list``            an array of storages
``storages remove``          ``{"tasks_kept": n, "tasks_deleted": n}``
``storages check``           an array of ``{"name", "ok", "detail", "remedy"}``
``sync``, ``export``         the storage, as its sync left it
``tasks list``               ``{"tasks": [task, …], "next": id or null}``; go on with ``--after``
``tasks show``               a task with ``annotations`` and ``predictions``; with ``--proxy-url``
                             also ``unresolved``, ``[uri, …]``, and ``ambiguous``,
                             ``[{"uri", "storages": [name, …]}, …]``
``annotations import``       ``{"created": n, "updated": n, "deleted": n, "errors": [problem, …]}``
``annotations list``         ``{"annotations": [annotation, …], "next": id or null}``
``annotations show``         an annotation
``annotations delete``       ``{"deleted": id}``
``ledger``                   ``{"links": [link, …], "counts": {"exported", "failed", "deleted"},
                             "next": annotation id or null}``
``errors``                   ``{"errors": [problem, …], "next": id or null}``
``db upgrade``               ``{"state": "up to date", "upgraded": whether there was work to do}``
``db check``                 ``{"state": "up to date" | "behind" | "empty" | "newer" | "not ours"}``
===========================  =====================================================================

A message on standard error and the exit status say what went wrong; then there is no JSON.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING

from msgspec import Struct, structs

from labelport.catalog.tasks import TaskDetails
from labelport.model import (
    AccessToken,
    Annotation,
    ExportLink,
    Link,
    Membership,
    Prediction,
    Problem,
    Project,
    Storage,
    SyncState,
    Task,
    User,
)

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Shape = dict[str, object]


def of_project(project: Project) -> Shape:
    """``{id, title, maximum_annotations, created_at}``"""
    return _of(project)


def of_user(user: User) -> Shape:
    """``{id, email, active, created_at}``"""
    return _of(user)


def of_membership(membership: Membership) -> Shape:
    """``{user_id, project_id, role}``"""
    return _of(membership)


def of_token(token: AccessToken) -> Shape:
    """``{id, user_id, name, kind, created_at, expires_at, last_used_at}``"""
    return _of(token)


def of_storage(storage: Storage, state: SyncState) -> Shape:
    """The storage's settings and ``location``, and of its latest sync ``status``, ``last_sync``,
    ``last_sync_count``, ``last_sync_job``, ``traceback``, ``run_id`` and ``meta``: its times, its
    ``duration`` in seconds and its counters."""
    shape = _of(storage)
    shape["location"] = storage.location
    for name in ("status", "last_sync", "last_sync_count", "last_sync_job", "traceback", "run_id"):
        shape[name] = _plain(getattr(state, name))
    shape["meta"] = state.meta
    return shape


def of_link(link: Link) -> Shape:
    """``{storage_id, key, row_group, row_index, object_exists, etag, size, mtime}``"""
    return _of(link)


def of_task(task: Task) -> Shape:
    """The task's fields; ``data`` and ``meta`` as JSON; ``link`` is null where no storage
    brought the task."""
    shape = _of(task)
    shape["data"] = json.loads(task.data)
    shape["meta"] = json.loads(task.meta) if task.meta else None
    shape["link"] = of_link(task.link) if task.link else None
    return shape


def of_task_details(details: TaskDetails) -> Shape:
    """A task with ``annotations`` and ``predictions``, each with its ``result`` as JSON."""
    shape = of_task(details.task)
    for name in ("annotations", "predictions"):
        rows = getattr(details, name)
        shape[name] = [of_annotation(row) for row in rows]
    return shape


def of_annotation(annotation: Annotation | Prediction) -> Shape:
    """The annotation's (or prediction's) fields, with its ``result`` as JSON."""
    return _of(annotation) | {"result": json.loads(annotation.result)}


def of_export_link(link: ExportLink) -> Shape:
    """``{storage_id, annotation_id, task_id, key, digest, etag, object_exists, attempts, error,
    exported_at, deleted_at}``"""
    return _of(link)


def of_problem(problem: Problem) -> Shape:
    """``{key, row, reason, remedy, row_group}``; ``row`` counts from 0, null: the whole object."""
    return asdict(problem)


def _of(value: DataclassInstance | Struct) -> Shape:
    shape = structs.asdict(value) if isinstance(value, Struct) else asdict(value)
    return {name: _plain(each) for name, each in shape.items()}


def _plain(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime) else value
