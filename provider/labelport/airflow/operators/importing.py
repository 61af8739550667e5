"""The import: its plan, and a shard of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from labelport.airflow.jobs import job_of
from labelport.airflow.operators.shards import PlanOperator, ShardOperator
from labelport.airflow.running import report_to
from labelport.airflow.templated import flag, number

if TYPE_CHECKING:
    from airflow.sdk import Context

    from labelport.catalog import Catalog
    from labelport.importing import ImportOptions
    from labelport.model import Counters, Shard, Storage
    from labelport.stores import Store


class PlanImportOperator(PlanOperator):
    """Claim a storage for this dag run and split its keys into shards.

    The storage is ``queued`` from here on. Returns one small dictionary a shard, for
    ``ImportShardOperator.partial(…).expand(shard=plan.output)``. Repeated within one dag run it
    returns the plan that is there. Fails when another run is syncing the storage.

    :param storage: name of the storage in the catalog. (templated)
    :param shards: how many key ranges to aim at; a small bucket gets fewer. Each becomes a
        mapped task. (templated)
    :param catalog_conn_id: connection of the catalog, of type ``labelport``. (templated)
    """

    async def plan(
        self, catalog: Catalog, store: Store, storage: Storage, *, run_id: str, shards: int
    ) -> Sequence[Shard]:
        from labelport.importing import plan

        return await plan(catalog, store, storage, run_id=run_id, shards=shards)


class ImportShardOperator(ShardOperator):
    """Import one shard of a planned import; made to be mapped over `PlanImportOperator`'s plan.

    While it runs, XCom ``progress`` holds scanned, created, existed, errors and rate (tasks made
    and objects passed over, per second), renewed at most once a second. Returns the shard's
    counters. Killed or retried, it goes on where the last committed page ended: nothing is
    imported twice.

    :param storage: name of the storage in the catalog. (templated)
    :param shard: one item of the plan.
    :param reimport_changed: import objects again whose bytes changed since. (templated)
    :param max_errors: end the sync as failed beyond this many bad objects and rows; empty or
        None: never. (templated)
    :param catalog_conn_id: connection of the catalog, of type ``labelport``. (templated)
    """

    template_fields: Sequence[str] = (*ShardOperator.template_fields, "reimport_changed")

    def __init__(self, *, reimport_changed: bool | str = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.reimport_changed = reimport_changed

    async def sync(
        self, catalog: Catalog, store: Store, storage: Storage, context: Context
    ) -> Counters:
        from labelport.importing import import_shard

        return await import_shard(
            catalog,
            store,
            storage,
            run_id=job_of(context),
            index=self.shard["shard"],
            options=self._options(),
            on_progress=report_to(context["ti"]),
        )

    def _options(self) -> ImportOptions:
        from labelport.importing import ImportOptions

        return ImportOptions(
            reimport_changed=flag(self.reimport_changed), max_errors=number(self.max_errors)
        )
