"""Who may have which object: (user, task, exact URI) → the storage that answers, or a refusal."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

import sqlalchemy as sa

from labelport import resolving
from labelport.catalog import Catalog, access, storages, users
from labelport.catalog.access import TaskAccess
from labelport.errors import ConfigurationError
from labelport.model import Role, Storage
from labelport.resolving import Kind
from labelport.uri import ObjectUri
from labelport_proxy.batching import Batches
from labelport_proxy.caching import Kept
from labelport_proxy.refusing import Refusal, forbidden, not_found

log = logging.getLogger(__name__)

_MOST = 20_000  # decisions that are kept
_BATCH = 200  # of them made at once


class Request(NamedTuple):
    """Somebody wants an object."""

    user_id: int
    kind: Kind
    number: int  #: id of the task or project
    uri: str


class Grant(NamedTuple):
    """They may have it."""

    storage: Storage
    key: str
    access: str  #: says the same only as long as the user has the same rights


class Directory:
    """Decides, by the catalog. What it learns is used again for *seconds*."""

    def __init__(self, catalog: Catalog, seconds: float) -> None:
        self._catalog = catalog
        # By half: a decision is made of what may have been learned so long before.
        self._seconds = seconds / 2
        self._decisions: Kept[Request, Grant | Refusal] = Kept(_MOST)
        self._batches = Batches(self._decide_all, most=_BATCH)
        # Only `_decide_all` uses these, which runs once at a time.
        self._roles: Kept[tuple[int, int], tuple[Role | None]] = Kept(_MOST)
        self._storages: Kept[int, list[Storage]] = Kept(1_000)

    async def grant(self, request: Request) -> Grant:
        """What *request* may have. Raises `Refusal`."""
        decision = self._decisions.get(request)
        if decision is None:
            decision = await self._batches.ask(request)
            self._decisions.put(request, decision, self._seconds)
        if isinstance(decision, Refusal):
            raise decision.with_traceback(None)  # kept, without what it hung from last time
        return decision

    def _decide_all(self, requests: Sequence[Request]) -> list[Grant | Refusal]:
        numbers = {request.number for request in requests if request.kind == "tasks"}
        decisions: list[Grant | Refusal] = []
        with self._catalog.read() as connection:
            tasks = access.tasks(connection, numbers) if numbers else {}
            for request in requests:
                task = tasks.get(request.number) if request.kind == "tasks" else None
                try:
                    decisions.append(self._decide(connection, request, task))
                except Refusal as refusal:
                    decisions.append(refusal)
        return decisions

    def _decide(
        self, connection: sa.Connection, request: Request, task: TaskAccess | None
    ) -> Grant:
        what = request.kind.removesuffix("s")
        if request.kind == "tasks" and task is None:
            raise not_found(what)
        project_id = task.project_id if task else request.number
        role = self._role(connection, request.user_id, project_id)
        if role is None:
            raise not_found(what)
        uri = _parsed(request.uri)
        found = resolving.storage_for(
            uri,
            self._storages_of(connection, project_id),
            prefer=task.link_storage_id if task else None,
        )
        storage = found.storage
        if task and resolving.refers(task.data, request.uri):
            if storage is None:
                raise Refusal(
                    404,
                    "no_storage",
                    "The task refers to this, but no storage of its project has it.",
                )
        elif storage is None or not _open_to_members(connection, request.kind, storage, uri.key):
            raise forbidden(f"This {what} does not refer to that URI.")
        if found.rivals:
            log.warning(
                "storage %s answers for %s, as %s could: give them different prefixes",
                storage.name,
                storage.location,
                ", ".join(rival.name for rival in found.rivals),
            )
        return Grant(storage, uri.key, f"{request.user_id} {project_id} {role} {storage.id}")

    def _role(self, connection: sa.Connection, user_id: int, project_id: int) -> Role | None:
        known = self._roles.get((user_id, project_id))
        if known is None:
            known = (users.role(connection, user_id, project_id),)
            self._roles.put((user_id, project_id), known, self._seconds)
        return known[0]

    def _storages_of(self, connection: sa.Connection, project_id: int) -> list[Storage]:
        known = self._storages.get(project_id)
        if known is None:
            known = storages.list_all(connection, project_id)
            self._storages.put(project_id, known, self._seconds)
        return known


def _parsed(text: str) -> ObjectUri:
    try:
        return ObjectUri.parse(text)
    except ConfigurationError:
        raise forbidden("That is no URI of an object.") from None


def _open_to_members(connection: sa.Connection, kind: Kind, storage: Storage, key: str) -> bool:
    """Whether any member of the project may have this, referred to or not."""
    if storage.serve_any_key:
        return True
    is_media = kind == "projects" and storage.use_blob_urls
    return is_media and access.is_a_task(connection, storage.id, key)
