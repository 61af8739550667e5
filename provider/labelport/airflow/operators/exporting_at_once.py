"""Exports that are one task, and which storages are due for one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from labelport.airflow.assets import tell_outlets
from labelport.airflow.jobs import job_of
from labelport.airflow.operators.exporting import EXPORT_PROGRESS, export_options
from labelport.airflow.operators.storage import StorageOperator
from labelport.airflow.running import Work, claimed, opened, opened_store, report_to, summary
from labelport.connections import DEFAULT_CATALOG_CONN_ID
from labelport.errors import ConfigurationError, SyncRefused

if TYPE_CHECKING:
    from airflow.sdk import Context

    from labelport.catalog import Catalog
    from labelport.model import Storage, SyncState


class ExportInOneTaskOperator(StorageOperator):
    """An export as a single task, from claim to end. Fails when anything failed.

    Not for storages that get snapshots: those are whole, and never change. Refused while another
    run syncs the storage, which a retry may find ended.
    """

    #: What is exported; see `ExportShardOperator`.
    select: str

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._work: Work | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        from airflow.sdk.exceptions import AirflowException

        from labelport.model import Status

        with opened(self.storage, self.catalog_conn_id) as (catalog, storage):
            try:
                state = self._export(catalog, storage, context)
            except SyncRefused as exc:
                raise AirflowException(str(exc)) from exc
            except asyncio.CancelledError as exc:
                raise AirflowException("the export was stopped; a retry goes on") from exc
        report = {"status": str(state.status), **summary(state.counters)}
        self.log.info("export to %s: %s", storage.name, report)
        if state.status is not Status.COMPLETED:
            raise AirflowException(f"the export to {storage.name!r} ended {state.status}")
        tell_outlets(self, context, storage.name, report)
        return report

    def _export(self, catalog: Catalog, storage: Storage, context: Context) -> SyncState:
        from labelport import syncing
        from labelport.exporting import done_with_events
        from labelport.snapshots import check_single

        check_single(storage)
        self._work = Work()
        job = job_of(context)
        with claimed(catalog, storage, job):
            self._work.run(self._shard(catalog, storage, context))
        state = syncing.finish(catalog, storage, run_id=job)
        done_with_events(catalog, storage, state, export_options(self.select, None).select)
        return state

    async def _shard(self, catalog: Catalog, storage: Storage, context: Context) -> None:
        from labelport.exporting import export_shard, plan_export

        job = job_of(context)
        async with opened_store(storage) as store:
            for part in await plan_export(catalog, storage, run_id=job):
                await export_shard(
                    catalog,
                    store,
                    storage,
                    run_id=job,
                    index=part.index,
                    options=export_options(self.select, None),
                    on_progress=report_to(context["ti"], EXPORT_PROGRESS),
                )

    def on_kill(self) -> None:
        """Stop at the next step; what is in the ledger stays."""
        if self._work is not None:
            self._work.cancel()


class ExportChangesOperator(ExportInOneTaskOperator):
    """Export what changed, in one task, and move the storage's watermark; made to be mapped.

    The watermark moves to the newest event that was there before the export began, and only if
    the export had no errors: what it missed, the next one finds.

    :param storage: name of the storage in the catalog. (templated)
    :param catalog_conn_id: connection of the catalog, of type ``labelport``. (templated)
    """

    select = "changed"


class DeleteExportedOperator(ExportInOneTaskOperator):
    """Delete the exported objects of annotations that were deleted; write none.

    For storages with ``can_delete_objects``. Every export does this too. Returns the status and
    the counters: ``missing`` is how many objects were deleted.

    :param storage: name of the storage in the catalog. (templated)
    :param catalog_conn_id: connection of the catalog, of type ``labelport``. (templated)
    """

    select = "deleted"

    def _export(self, catalog: Catalog, storage: Storage, context: Context) -> SyncState:
        if not storage.can_delete_objects:
            raise ConfigurationError(
                f"storage {storage.name!r} may not delete objects; allow it with can_delete_objects"
            )
        return super()._export(catalog, storage, context)


class FindChangesOperator(BaseOperator):
    """Name the export storages whose project has annotation events beyond their watermark.

    Those that get snapshots are left out: a change makes no snapshot.

    For ``ExportChangesOperator.partial(…).expand(storage=found.output)``.

    :param catalog_conn_id: connection of the catalog, of type ``labelport``. (templated)
    """

    template_fields: Sequence[str] = ("catalog_conn_id",)
    ui_color = StorageOperator.ui_color

    def __init__(self, *, catalog_conn_id: str = DEFAULT_CATALOG_CONN_ID, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.catalog_conn_id = catalog_conn_id

    def execute(self, context: Context) -> list[str]:
        from labelport.catalog import news
        from labelport.connections import open_catalog

        with open_catalog(self.catalog_conn_id) as catalog, catalog.read() as connection:
            return list(news.behind(connection))
