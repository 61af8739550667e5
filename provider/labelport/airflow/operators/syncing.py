"""How syncs end: by their last task, or found dead."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, TriggerRule

from labelport.airflow.jobs import job_of, job_state
from labelport.airflow.operators.storage import StorageOperator
from labelport.airflow.running import opened, summary
from labelport.airflow.templated import flag
from labelport.connections import DEFAULT_CATALOG_CONN_ID

if TYPE_CHECKING:
    from airflow.sdk import Context

    from labelport.catalog import Catalog
    from labelport.model import Storage, SyncState


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

        from labelport.model import Status

        with opened(self.storage, self.catalog_conn_id) as (catalog, storage):
            state = self.end(catalog, storage, job_of(context))
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

    def end(self, catalog: Catalog, storage: Storage, run_id: str) -> SyncState:
        """End the run, and say how it ended."""
        from labelport import syncing

        return syncing.finish(catalog, storage, run_id=run_id)


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
