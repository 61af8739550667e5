"""The import as tasks: validate, plan, import a shard, finish; and the reconciling of all syncs.

A dag file imports this at every parse: nothing heavy is imported before `execute`, and nothing
is looked up before templates are rendered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, TriggerRule

from labelport.airflow.jobs import job_of, job_state
from labelport.airflow.running import Work, claimed, opened, report_to, summary
from labelport.airflow.templated import flag, number
from labelport.connections import DEFAULT_CATALOG_CONN_ID

if TYPE_CHECKING:
    from airflow.sdk import Context

    from labelport.catalog import Catalog
    from labelport.checking import Check
    from labelport.importing import ImportOptions
    from labelport.model import Counters, Storage

#: How many shards an import is planned in when nobody says otherwise.
DEFAULT_SHARDS = 4


class StorageOperator(BaseOperator):
    """What the operators below share: a storage in a catalog.

    :param storage: name of the storage in the catalog. (templated)
    :param catalog_conn_id: connection of the catalog, of type ``labelport``. (templated)
    """

    template_fields: Sequence[str] = ("storage", "catalog_conn_id")
    ui_color = "#e8f4f0"

    def __init__(
        self, *, storage: str, catalog_conn_id: str = DEFAULT_CATALOG_CONN_ID, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.storage = storage
        self.catalog_conn_id = catalog_conn_id


class ValidateStorageOperator(StorageOperator):
    """Check that a storage can do what its syncs will need, before they need it.

    Logs every check with its remedy, returns their names, and fails when one of them failed.

    :param storage: name of the storage in the catalog. (templated)
    :param claim: as the first task of a sync: claim the storage for this dag run, and let a
        failed check be the sync's failure.
    :param probe: for an export storage, also write a small object and delete it again.
    :param catalog_conn_id: connection of the catalog, of type ``labelport``. (templated)
    """

    def __init__(self, *, claim: bool = False, probe: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.claim = claim
        self.probe = probe

    def execute(self, context: Context) -> list[str]:
        job = job_of(context)
        with (
            opened(self.storage, self.catalog_conn_id) as (catalog, storage),
            claimed(catalog, storage, job) if self.claim else nullcontext(),
        ):
            checks = asyncio.run(self._check(storage))
        return [check.name for check in checks]

    async def _check(self, storage: Storage) -> list[Check]:
        from labelport.checking import require, validate
        from labelport.connections import open_store

        store = open_store(storage)
        try:
            checks = await validate(store, storage, probe=self.probe)
        finally:
            await store.close()
        for check in checks:
            self.log.info("%s", check)
        require(storage, checks)
        return checks


class PlanImportOperator(StorageOperator):
    """Claim a storage for this dag run and split its keys into shards.

    The storage is ``queued`` from here on. Returns one small dictionary a shard, for
    ``ImportShardOperator.partial(…).expand(shard=plan.output)``. Repeated within one dag run it
    returns the plan that is there. Fails when another run is syncing the storage.

    :param storage: name of the storage in the catalog. (templated)
    :param shards: how many key ranges to aim at; a small bucket gets fewer. Each becomes a
        mapped task. (templated)
    :param catalog_conn_id: connection of the catalog, of type ``labelport``. (templated)
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
            count = asyncio.run(self._plan(catalog, storage, job))
        return [{"shard": n, "label": f"{n + 1} of {count}"} for n in range(count)]

    async def _plan(self, catalog: Catalog, storage: Storage, job: str) -> int:
        from labelport.connections import open_store
        from labelport.importing import plan

        store = open_store(storage)
        try:
            wanted = number(self.shards) or DEFAULT_SHARDS
            return len(await plan(catalog, store, storage, run_id=job, shards=wanted))
        finally:
            await store.close()


class ImportShardOperator(StorageOperator):
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

    template_fields: Sequence[str] = (
        *StorageOperator.template_fields,
        "shard",
        "reimport_changed",
        "max_errors",
    )

    def __init__(
        self,
        *,
        shard: dict[str, Any],
        reimport_changed: bool | str = False,
        max_errors: int | str | None = None,
        map_index_template: str | None = "{{ task.shard['label'] }}",
        **kwargs: Any,
    ) -> None:
        super().__init__(map_index_template=map_index_template, **kwargs)
        self.shard = shard
        self.reimport_changed = reimport_changed
        self.max_errors = max_errors
        self._work: Work | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        from airflow.sdk.exceptions import AirflowException

        self._work = Work()
        with opened(self.storage, self.catalog_conn_id) as (catalog, storage):
            try:
                counters = self._work.run(self._import(catalog, storage, context))
            except asyncio.CancelledError as exc:
                raise AirflowException(
                    "the shard was stopped; a retry goes on from its last page"
                ) from exc
        return summary(counters)

    async def _import(self, catalog: Catalog, storage: Storage, context: Context) -> Counters:
        from labelport.connections import open_store
        from labelport.importing import import_shard

        store = open_store(storage)
        try:
            return await import_shard(
                catalog,
                store,
                storage,
                run_id=job_of(context),
                index=self.shard["shard"],
                options=self._options(),
                on_progress=report_to(context["ti"]),
            )
        finally:
            await store.close()

    def _options(self) -> ImportOptions:
        from labelport.importing import ImportOptions

        return ImportOptions(
            reimport_changed=flag(self.reimport_changed), max_errors=number(self.max_errors)
        )

    def on_kill(self) -> None:
        """Stop at the next step; what is committed stays, and a retry resumes there."""
        if self._work is not None:
            self._work.cancel()


class FinishSyncOperator(StorageOperator):
    """Set the final status of this dag run's sync, and fail when it failed.

    Runs whatever became of the shards, as the dag run's leaf, so that a dag run is a success
    only when its sync is. Returns the status and the run's counters.

    :param storage: name of the storage in the catalog. (templated)
    :param fail_on_errors: fail as well when the sync ended ``completed_with_errors``. Not by
        default: bad objects are the bucket's, listed in the catalog with their remedy, and all
        good ones were imported. (templated)
    :param catalog_conn_id: connection of the catalog, of type ``labelport``. (templated)
    """

    template_fields: Sequence[str] = (*StorageOperator.template_fields, "fail_on_errors")

    def __init__(self, *, fail_on_errors: bool | str = False, **kwargs: Any) -> None:
        super().__init__(**{"trigger_rule": TriggerRule.ALL_DONE} | kwargs)
        self.fail_on_errors = fail_on_errors

    def execute(self, context: Context) -> dict[str, Any]:
        from airflow.sdk.exceptions import AirflowFailException

        from labelport import syncing
        from labelport.model import Status

        with opened(self.storage, self.catalog_conn_id) as (catalog, storage):
            state = syncing.finish(catalog, storage, run_id=job_of(context))
        failing = {Status.FAILED}
        if flag(self.fail_on_errors):
            failing.add(Status.COMPLETED_WITH_ERRORS)
        report = {"status": str(state.status), **summary(state.counters)}
        self.log.info("sync of %s: %s", storage.name, report)
        if state.traceback:
            self.log.error("%s", state.traceback)
        if state.status in failing:
            raise AirflowFailException(f"the sync of {storage.name!r} ended {state.status}")
        return report


class ReconcileSyncsOperator(BaseOperator):
    """Mark the syncs that died as failed, each with its cause; those that live are left alone.

    Dead is a sync whose worker has been silent for longer than its lease, or whose dag run has
    ended or was removed. Returns what was found dead.

    :param catalog_conn_id: connection of the catalog, of type ``labelport``. (templated)
    """

    template_fields: Sequence[str] = ("catalog_conn_id",)
    ui_color = StorageOperator.ui_color

    def __init__(self, *, catalog_conn_id: str = DEFAULT_CATALOG_CONN_ID, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.catalog_conn_id = catalog_conn_id

    def execute(self, context: Context) -> list[dict[str, str]]:
        from labelport import syncing
        from labelport.connections import open_catalog

        with open_catalog(self.catalog_conn_id) as catalog:
            dead = syncing.reconcile(catalog, partial(job_state, context))
        return [{"storage": run.storage, "job": run.job, "cause": run.cause} for run in dead]
