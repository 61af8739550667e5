"""The export: its plan, a shard of it, its end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from labelport.airflow.assets import tell_outlets
from labelport.airflow.jobs import job_of
from labelport.airflow.operators.shards import PlanOperator, ShardOperator
from labelport.airflow.operators.syncing import FinishSyncOperator
from labelport.airflow.running import opened_store, report_to
from labelport.airflow.templated import number
from labelport.errors import ConfigurationError

if TYPE_CHECKING:
    from airflow.sdk import Context

    from labelport.catalog import Catalog
    from labelport.exporting import ExportOptions
    from labelport.model import Counters, Shard, Storage, SyncState
    from labelport.stores import Store

#: The counters that an export's ``progress`` shows beside the rate.
EXPORT_PROGRESS = ("scanned", "created", "updated", "existed", "missing", "errors")


class PlanExportOperator(PlanOperator):
    """Claim a storage for this dag run and split its annotations into shards.

    With a key template every key is worked out first; two annotations with one key fail the
    export before anything is written. Returns one small dictionary a shard, for
    ``ExportShardOperator.partial(…).expand(shard=plan.output)``. Repeated within one dag run it
    returns the plan that is there. Fails when another run is syncing the storage.

    :param storage: name of the storage in the catalog. (templated)
    :param shards: how many ranges of ids to aim at. Each becomes a mapped task. (templated)
    :param catalog_conn_id: connection of the catalog, of type ``labelport``. (templated)
    """

    async def plan(
        self, catalog: Catalog, store: Store, storage: Storage, *, run_id: str, shards: int
    ) -> Sequence[Shard]:
        from labelport.exporting import plan_export

        return await plan_export(catalog, storage, run_id=run_id, shards=shards)


class ExportShardOperator(ShardOperator):
    """Export one shard of a planned export; made to be mapped over `PlanExportOperator`'s plan.

    While it runs, XCom ``progress`` holds scanned, created, updated, existed, missing, errors and
    rate (annotations a second), renewed at most once a second. Returns the shard's counters.
    Killed or retried, it goes on where the last page ended that is in the ledger.

    :param storage: name of the storage in the catalog. (templated)
    :param shard: one item of the plan.
    :param select: which annotations to write: ``all``, ``new`` (never exported, or failed),
        ``changed`` (those, and those whose bytes would differ). (templated)
    :param max_errors: end the sync as failed beyond this many failed annotations; empty or None:
        never. (templated)
    :param catalog_conn_id: connection of the catalog, of type ``labelport``. (templated)
    """

    template_fields: Sequence[str] = (*ShardOperator.template_fields, "select")

    def __init__(self, *, select: str = "changed", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.select = select

    async def sync(
        self, catalog: Catalog, store: Store, storage: Storage, context: Context
    ) -> Counters:
        from labelport.exporting import export_shard

        return await export_shard(
            catalog,
            store,
            storage,
            run_id=job_of(context),
            index=self.shard["shard"],
            options=export_options(self.select, number(self.max_errors)),
            on_progress=report_to(context["ti"], EXPORT_PROGRESS),
        )


class FinishExportOperator(FinishSyncOperator):
    """Set the final status of this dag run's export, and fail when anything failed.

    Of a snapshot it writes the manifest and ``_SUCCESS`` before. An export without errors moves
    the storage's watermark to where its plan was, and tells the outlet assets with the status and
    the counters in ``extra``: an alias (`assets.EXPORTED`) resolves to the storage's own asset, and
    only if objects were written or deleted.

    :param storage: name of the storage in the catalog. (templated)
    :param select: what the shards exported. (templated)
    :param fail_on_errors: fail as well when the sync ended ``completed_with_errors``. (templated)
    :param catalog_conn_id: connection of the catalog, of type ``labelport``. (templated)
    """

    template_fields: Sequence[str] = (*FinishSyncOperator.template_fields, "select")

    def __init__(
        self,
        *,
        select: str = "changed",
        fail_on_errors: bool | str = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(fail_on_errors=fail_on_errors, **kwargs)
        self.select = select

    def execute(self, context: Context) -> dict[str, Any]:
        report = super().execute(context)
        tell_outlets(self, context, self.storage, report)
        return report

    def end(self, catalog: Catalog, storage: Storage, run_id: str) -> SyncState:
        """End the run; a snapshot is published before."""
        from labelport import syncing
        from labelport.exporting import done_with_events
        from labelport.snapshots import in_files

        if in_files(storage):
            try:
                asyncio.run(self._publish(catalog, storage, run_id))
            except BaseException as exc:  # a run whose snapshot is not whole has failed
                syncing.fail(catalog, storage, run_id=run_id, error=exc)
                raise
        state = super().end(catalog, storage, run_id)
        done_with_events(catalog, storage, state, export_options(self.select, None).select)
        return state

    async def _publish(self, catalog: Catalog, storage: Storage, run_id: str) -> None:
        from labelport.publishing import publish

        async with opened_store(storage) as store:
            await publish(catalog, store, storage, run_id)


def export_options(select: str, max_errors: int | None) -> ExportOptions:
    """What an export may do, by words that may have come out of a template.

    Raises:
        ConfigurationError: *select* is no selection.
    """
    from labelport.exporting import ExportOptions, Selection

    try:
        return ExportOptions(select=Selection(select.strip().lower()), max_errors=max_errors)
    except ValueError:
        raise ConfigurationError(f"select is {select!r}; write all, new or changed") from None
