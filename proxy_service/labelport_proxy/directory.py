"""Who may have which object: (user, task, exact URI) → the storage that answers, or a refusal."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
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
from labelport_proxy.catalog_threads import CatalogThreads
from labelport_proxy.refusing import Refusal, forbidden, not_found

log = logging.getLogger(__name__)

_MOST = 20_000  # decisions that are kept
_BATCH = 200  # of them made at once
_REPORT_SECONDS = 600.0


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


class _Learned(NamedTuple):
    """What decides about all objects that a user asks for in a project."""

    role: Role | None
    storages: Sequence[Storage]
    until: float  #: by the clock of `Kept`, when it must be learned again


class Directory:
    """Decides, by the catalog. What it learns is used again for *seconds*, and no decision of it
    any longer."""

    def __init__(
        self,
        catalog: Catalog,
        threads: CatalogThreads,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._catalog = catalog
        self._seconds = seconds
        self._clock = clock
        self._decisions: Kept[Request, Grant | Refusal] = Kept(_MOST, clock)
        self._batches = Batches(self._decide_all, most=_BATCH, threads=threads)
        # These are `_decide_all`'s, in its thread.
        self._learned: Kept[tuple[int, int], _Learned] = Kept(_MOST, clock)
        self._reported: Kept[tuple[int, ...], bool] = Kept(1_000, clock)

    def known(self, request: Request) -> Grant | None:
        """What *request* may have, if that was decided a moment ago. Raises `Refusal`."""
        decision = self._decisions.get(request)
        return None if decision is None else _granted(decision)

    async def grant(self, request: Request) -> Grant:
        """What *request* may have.

        Raises `Refusal`, and `sqlalchemy.exc.TimeoutError` when the catalog does not answer.
        """
        decision, until = await self._batches.ask(request)
        self._decisions.put(request, decision, until - self._clock())
        return _granted(decision)

    def _decide_all(self, requests: Sequence[Request]) -> list[tuple[Grant | Refusal, float]]:
        numbers = {request.number for request in requests if request.kind == "tasks"}
        # From before the catalog is asked: what changes while it answers is not in its answer.
        until = self._clock() + self._seconds
        with self._catalog.read() as connection:
            tasks = access.tasks(connection, numbers) if numbers else {}
            return [
                self._decided(
                    connection,
                    request,
                    tasks.get(request.number) if request.kind == "tasks" else None,
                    until,
                )
                for request in requests
            ]

    def _decided(
        self, connection: sa.Connection, request: Request, task: TaskAccess | None, until: float
    ) -> tuple[Grant | Refusal, float]:
        """The decision, and until when it is good; *until* if all of it is learned now."""
        what = request.kind.removesuffix("s")
        if request.kind == "tasks" and task is None:
            return not_found(what), until
        project_id = task.project_id if task else request.number
        learned = self._learn(connection, request.user_id, project_id, until)
        if learned.role is None:
            return not_found(what), learned.until
        try:
            storage, key = self._answering(connection, request, task, learned.storages)
        except Refusal as refusal:
            return refusal, learned.until
        rights = f"{request.user_id} {project_id} {learned.role} {storage.id}"
        return Grant(storage, key, rights), learned.until

    def _learn(
        self, connection: sa.Connection, user_id: int, project_id: int, until: float
    ) -> _Learned:
        known = self._learned.get((user_id, project_id))
        if known is None:
            role = users.role(connection, user_id, project_id)
            known = _Learned(role, storages.list_all(connection, project_id), until)
            self._learned.put((user_id, project_id), known, until - self._clock())
        return known

    def _answering(
        self,
        connection: sa.Connection,
        request: Request,
        task: TaskAccess | None,
        known: Sequence[Storage],
    ) -> tuple[Storage, str]:
        """The storage that answers, and the key. Raises `Refusal`."""
        uri = _parsed(request.uri)
        prefer = task.link_storage_id if task else None
        storage, rivals = resolving.storage_for(uri, known, prefer=prefer)
        if task and resolving.refers(task.data, request.uri):
            if storage is None:
                raise Refusal(
                    404,
                    "no_storage",
                    "The task refers to this, but no storage of its project has it.",
                )
        elif storage is None or not _open_to_members(connection, request.kind, storage, uri.key):
            raise forbidden(f"This {request.kind.removesuffix('s')} does not refer to that URI.")
        if rivals:
            self._report(storage, rivals)
        return storage, uri.key

    def _report(self, storage: Storage, rivals: Sequence[Storage]) -> None:
        """Say that it is not clear which storage answers; not again and again."""
        ids = (storage.id, *(rival.id for rival in rivals))
        if self._reported.get(ids) is None:
            self._reported.put(ids, True, _REPORT_SECONDS)
            log.warning(
                "storage %s answers for %s, as %s could: give them different prefixes",
                storage.name,
                storage.location,
                ", ".join(rival.name for rival in rivals),
            )


def _granted(decision: Grant | Refusal) -> Grant:
    if isinstance(decision, Refusal):
        raise decision.anew()  # what is kept would keep all that it was raised through
    return decision


def _parsed(text: str) -> ObjectUri:
    try:
        return ObjectUri.parse(text)
    except ConfigurationError:
        raise forbidden("That is no URI of an object.") from None


def _open_to_members(connection: sa.Connection, kind: Kind, storage: Storage, key: str) -> bool:
    """Whether any member of the project may have this, referred to or not.

    Not by its prefix if it holds backslashes: a server that takes them for slashes would find it
    below another prefix than we do.
    """
    if storage.serve_any_key and "\\" not in key:
        return True
    is_media = kind == "projects" and storage.use_blob_urls
    return is_media and access.is_a_task(connection, storage.id, key)
