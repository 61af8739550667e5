"""Sensors: annotations to export, objects to import."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator, PokeReturnValue
from airflow.sdk.configuration import conf

from labelport.airflow.noticing import LOOK_OBJECTS, Look, new_annotations, new_objects
from labelport.airflow.running import opened, opened_store
from labelport.connections import DEFAULT_CATALOG_CONN_ID

if TYPE_CHECKING:
    from airflow.sdk import Context

    from labelport.airflow.triggers import StorageTrigger
    from labelport.catalog import Catalog
    from labelport.model import Storage


class StorageSensor(BaseSensorOperator):
    """Wait for something new about a storage; returns how much there is, in numbers.

    :param storage: name of the storage in the catalog. (templated)
    :param catalog_conn_id: connection of the catalog, of type ``labelport``. (templated)
    :param deferrable: wait in the triggerer, without a worker's slot; the first look is the
        task's own. By default as ``[operators] default_deferrable`` says.
    """

    template_fields: Sequence[str] = ("storage", "catalog_conn_id")
    ui_color = "#e8f4f0"

    def __init__(
        self,
        *,
        storage: str,
        catalog_conn_id: str = DEFAULT_CATALOG_CONN_ID,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.storage = storage
        self.catalog_conn_id = catalog_conn_id
        self.deferrable = deferrable

    def execute(self, context: Context) -> Any:
        if not self.deferrable:
            return super().execute(context)
        found = self.poke(context)
        if found:
            return found.xcom_value
        self.defer(
            trigger=self.trigger(),
            method_name="execute_complete",
            timeout=timedelta(seconds=self.timeout),
        )

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """What the trigger found, as the sensor's result."""
        from airflow.sdk.exceptions import AirflowFailException

        if "error" in event:
            raise AirflowFailException(event["error"])
        return event

    def poke(self, context: Context) -> PokeReturnValue:
        with opened(self.storage, self.catalog_conn_id) as (catalog, storage):
            found = self.look(catalog, storage)
        return PokeReturnValue(bool(found), found)

    def look(self, catalog: Catalog, storage: Storage) -> dict[str, Any] | None:
        """What is new, if anything is."""
        raise NotImplementedError

    def trigger(self) -> StorageTrigger:
        """What goes on looking in the triggerer."""
        raise NotImplementedError


class NewAnnotationsSensor(StorageSensor):
    """Wait until annotations of an export storage's project changed since its last export.

    That is, until the project's outbox has events beyond the storage's watermark, which every
    export without errors moves. Returns ``first`` and ``last`` (ids of events), ``created``,
    ``updated`` and ``deleted``.

    :param storage: name of an export storage in the catalog. (templated)
    :param catalog_conn_id: connection of the catalog, of type ``labelport``. (templated)
    :param deferrable: wait in the triggerer, without a worker's slot.
    """

    def look(self, catalog: Catalog, storage: Storage) -> dict[str, Any] | None:
        return new_annotations(catalog, storage)

    def trigger(self) -> StorageTrigger:
        from labelport.airflow.triggers import NewAnnotationsTrigger

        return NewAnnotationsTrigger(self.storage, self.catalog_conn_id, self.poke_interval)


class NewObjectsSensor(StorageSensor):
    """Wait until an import storage's bucket holds objects that the catalog does not know.

    A look is cheap: one page behind the last known key, then up to *max_objects* more, where the
    look before ended. So a new object in the middle of a very large bucket is noticed after some
    looks only; in ``mode="reschedule"`` every look begins at the start. Objects that changed are
    not new. Returns ``new``: how many were met in the first page that held one.

    :param storage: name of an import storage in the catalog. (templated)
    :param max_objects: about how many objects one look goes through.
    :param catalog_conn_id: connection of the catalog, of type ``labelport``. (templated)
    :param deferrable: wait in the triggerer, without a worker's slot.
    """

    def __init__(self, *, max_objects: int = LOOK_OBJECTS, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.max_objects = max_objects
        self._position = ""

    def look(self, catalog: Catalog, storage: Storage) -> dict[str, Any] | None:
        found = asyncio.run(self._look(catalog, storage))
        self._position = found.position
        return {"new": found.new} if found.new else None

    async def _look(self, catalog: Catalog, storage: Storage) -> Look:
        async with opened_store(storage) as store:
            return await new_objects(
                catalog, store, storage, position=self._position, max_objects=self.max_objects
            )

    def trigger(self) -> StorageTrigger:
        from labelport.airflow.triggers import NewObjectsTrigger

        return NewObjectsTrigger(
            self.storage, self.catalog_conn_id, self.poke_interval, max_objects=self.max_objects
        )
