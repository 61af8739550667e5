"""What a plan and a shard have in common, whichever way the data goes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from labelport.airflow.jobs import job_of
from labelport.airflow.operators.storage import StorageOperator
from labelport.airflow.running import Work, claimed, opened, opened_store, summary
from labelport.airflow.templated import number

if TYPE_CHECKING:
    from airflow.sdk import Context

    from labelport.catalog import Catalog
    from labelport.model import Counters, Shard, Storage
    from labelport.stores import Store

#: How many shards a sync is planned in when nobody says otherwise.
DEFAULT_SHARDS = 4


class PlanOperator(StorageOperator):
    """Claim a storage for this dag run and cut its sync into shards.

    The storage is ``queued`` from here on. Returns one small dictionary a shard. Repeated within
    one dag run it returns the plan that is there. Fails when another run is syncing the storage.

    :param shards: how many shards to aim at. (templated)
    """

    template_fields: Sequence[str] = (*StorageOperator.template_fields, "shards")

    def __init__(self, *, shards: int | str = DEFAULT_SHARDS, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shards = shards

    def execute(self, context: Context) -> list[dict[str, Any]]:
        job = job_of(context)
        with (
            opened(self.storage, self.catalog_conn_id) as (catalog, storage),
            claimed(catalog, storage, job),
        ):
            count = asyncio.run(self._count(catalog, storage, job))
        return [{"shard": n, "label": f"{n + 1} of {count}"} for n in range(count)]

    async def _count(self, catalog: Catalog, storage: Storage, job: str) -> int:
        wanted = number(self.shards) or DEFAULT_SHARDS
        async with opened_store(storage) as store:
            return len(await self.plan(catalog, store, storage, run_id=job, shards=wanted))

    async def plan(
        self, catalog: Catalog, store: Store, storage: Storage, *, run_id: str, shards: int
    ) -> Sequence[Shard]:
        """The run's shards, written to the catalog."""
        raise NotImplementedError


class ShardOperator(StorageOperator):
    """Do one shard of a planned sync; made to be mapped over a plan.

    Killed or retried, it goes on where the last committed page ended.

    :param shard: one item of the plan.
    :param max_errors: end the sync as failed beyond this many errors; empty or None: never.
        (templated)
    """

    template_fields: Sequence[str] = (*StorageOperator.template_fields, "shard", "max_errors")

    def __init__(
        self,
        *,
        shard: dict[str, Any],
        max_errors: int | str | None = None,
        map_index_template: str | None = "{{ task.shard['label'] }}",
        **kwargs: Any,
    ) -> None:
        super().__init__(map_index_template=map_index_template, **kwargs)
        self.shard = shard
        self.max_errors = max_errors
        self._work: Work | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        from airflow.sdk.exceptions import AirflowException

        self._work = Work()
        with opened(self.storage, self.catalog_conn_id) as (catalog, storage):
            try:
                counters = self._work.run(self._sync(catalog, storage, context))
            except asyncio.CancelledError as exc:
                raise AirflowException(
                    "the shard was stopped; a retry goes on from its last page"
                ) from exc
        return summary(counters)

    async def _sync(self, catalog: Catalog, storage: Storage, context: Context) -> Counters:
        async with opened_store(storage) as store:
            return await self.sync(catalog, store, storage, context)

    async def sync(
        self, catalog: Catalog, store: Store, storage: Storage, context: Context
    ) -> Counters:
        """Do the shard, and return its counters."""
        raise NotImplementedError

    def on_kill(self) -> None:
        """Stop at the next step; what is committed stays, and a retry resumes there."""
        if self._work is not None:
            self._work.cancel()
