"""What waits in the triggerer: for a sensor, or on behalf of an asset.

The catalog blocks, so it is asked in threads. Errors that may pass are logged and tried again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from airflow.sdk.exceptions import AirflowRuntimeError
from airflow.triggers.base import BaseEventTrigger, BaseTrigger, TriggerEvent

from labelport.airflow.noticing import LOOK_OBJECTS, new_annotations, new_objects
from labelport.connections import DEFAULT_CATALOG_CONN_ID, open_catalog, open_store
from labelport.errors import LabelportError, StoreUnavailable

if TYPE_CHECKING:
    from labelport.catalog import Catalog
    from labelport.model import Storage

#: The database, the store or Airflow's own API may be back at the next try.
_PASSING = (sa.exc.DBAPIError, StoreUnavailable, AirflowRuntimeError, OSError)
#: How long a watcher that met one error after another waits at most, in seconds.
_LONGEST_PAUSE = 60.0


class StorageTrigger(BaseTrigger):
    """Wait until there is something new about a storage, and tell how much.

    Ends with an event that holds numbers, or ``error`` if nobody but a person can help.

    :param storage: name of the storage in the catalog.
    :param catalog_conn_id: connection of the catalog, of type ``labelport``.
    :param poke_seconds: how long to wait between two looks.
    """

    def __init__(
        self,
        storage: str,
        catalog_conn_id: str = DEFAULT_CATALOG_CONN_ID,
        poke_seconds: float = 60.0,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.storage = storage
        self.catalog_conn_id = catalog_conn_id
        self.poke_seconds = poke_seconds

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "storage": self.storage,
                "catalog_conn_id": self.catalog_conn_id,
                "poke_seconds": self.poke_seconds,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        while True:
            try:
                found = await self.look()
            except _PASSING as exc:
                self.log.warning("storage %s: will look again: %s", self.storage, exc)
                found = None
            except LabelportError as exc:
                found = {"error": str(exc)}
            if found:
                yield TriggerEvent(found)  # type: ignore[no-untyped-call]
                return
            await asyncio.sleep(self.poke_seconds)

    async def look(self) -> dict[str, Any] | None:
        """What is new, if anything is."""
        raise NotImplementedError

    def _opened(self) -> tuple[Catalog, Storage]:
        from labelport.catalog import storages

        catalog = open_catalog(self.catalog_conn_id)
        try:
            with catalog.read() as connection:
                return catalog, storages.get(connection, self.storage)
        except BaseException:
            catalog.close()
            raise


class NewAnnotationsTrigger(StorageTrigger):
    """Wait until annotations of an export storage's project changed beyond its watermark."""

    async def look(self) -> dict[str, Any] | None:
        return await asyncio.to_thread(self._look)

    def _look(self) -> dict[str, Any] | None:
        catalog, storage = self._opened()
        with catalog:
            return new_annotations(catalog, storage)


class NewObjectsTrigger(StorageTrigger):
    """Wait until an import storage's bucket holds objects that the catalog does not know.

    :param max_objects: about how many objects one look goes through; the next goes on there.
    """

    def __init__(self, *args: Any, max_objects: int = LOOK_OBJECTS, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.max_objects = max_objects
        self._position = ""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        path, arguments = super().serialize()
        return path, arguments | {"max_objects": self.max_objects}

    async def look(self) -> dict[str, Any] | None:
        catalog, storage = await asyncio.to_thread(self._opened)
        with catalog:
            store = await asyncio.to_thread(open_store, storage)
            try:
                found = await new_objects(
                    catalog,
                    store,
                    storage,
                    position=self._position,
                    max_objects=self.max_objects,
                )
            finally:
                await store.close()
        self._position = found.position
        return {"new": found.new} if found.new else None


class AnnotationEventsTrigger(BaseEventTrigger):
    """Make asset events of what happens to annotations, for an ``AssetWatcher``.

    One event a look and project, with the project's title, how many annotations were created,
    updated and deleted, and the first and last id of the outbox; never lists of ids. The cursor
    is in the asset's state store, so that a restarted triggerer goes on where it was; an event
    may come twice then. Who consumes them works from a watermark of its own.

    :param project: title of the project to watch; None: all of them.
    :param catalog_conn_id: connection of the catalog, of type ``labelport``.
    :param poll_seconds: how long to wait between two looks.
    """

    def __init__(
        self,
        project: str | None = None,
        catalog_conn_id: str = DEFAULT_CATALOG_CONN_ID,
        poll_seconds: float = 1.5,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.project = project
        self.catalog_conn_id = catalog_conn_id
        self.poll_seconds = poll_seconds
        self._catalog: Catalog | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "project": self.project,
                "catalog_conn_id": self.catalog_conn_id,
                "poll_seconds": self.poll_seconds,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        cursor: dict[str, int] | None = None
        pause = self.poll_seconds
        while True:
            try:
                if cursor is None:
                    cursor = await self._cursor()
                happened = await asyncio.to_thread(self._look, cursor)
                for project_id, report in happened.items():
                    yield TriggerEvent(report)  # type: ignore[no-untyped-call]
                    cursor = cursor | {project_id: report["last"]}
                if happened:
                    await self._keep(cursor)
                pause = self.poll_seconds
            except (*_PASSING, LabelportError) as exc:
                self.log.warning("the outbox could not be read, will try again: %s", exc)
                await self.cleanup()
                pause = min(2 * pause, _LONGEST_PAUSE)
            await asyncio.sleep(pause)

    def _look(self, cursor: dict[str, int]) -> dict[str, dict[str, Any]]:
        """What happened beyond *cursor*, by the id of the project."""
        from labelport.catalog import events, news, projects

        if self._catalog is None:
            self._catalog = open_catalog(self.catalog_conn_id)
        happened = {}
        with self._catalog.read() as connection:
            if self.project is None:
                watched = projects.list_all(connection)
            else:
                watched = [projects.get(connection, self.project)]
            newest = events.newest_of_all(connection)
            for project in watched:
                seen = cursor.get(str(project.id), 0)
                if newest.get(project.id, 0) > seen:
                    found = news.since(connection, project.id, seen)
                    if found is not None:
                        happened[str(project.id)] = {"project": project.title} | found._asdict()
        return happened

    async def _cursor(self) -> dict[str, int]:
        if self.asset_state_store is None:
            return {}
        found: Any = await asyncio.to_thread(self.asset_state_store.get, "cursor", default={})
        return dict(found)

    async def _keep(self, cursor: dict[str, int]) -> None:
        if self.asset_state_store is not None:
            await asyncio.to_thread(self.asset_state_store.set, "cursor", dict(cursor))

    async def cleanup(self) -> None:
        """Close the catalog; the next look opens it again."""
        catalog, self._catalog = self._catalog, None
        if catalog is not None:
            await asyncio.to_thread(catalog.close)
