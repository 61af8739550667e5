"""The dag that finds dead syncs."""

import pytest

from labelport import syncing
from labelport.catalog import storages
from labelport.model import Status


@pytest.fixture
def reconciled(run_dag, catalog):
    """Runs the dag, and returns the state of a storage after it."""

    def reconcile(storage):
        assert run_dag("reconcile_syncs").state == "success"
        with catalog.read() as connection:
            return storages.state(connection, storage.id)

    return reconcile


def test_a_sync_whose_dag_run_was_removed_is_dead(reconciled, add_storage, catalog):
    storage = add_storage()
    job = "import_storage/manual__removed"
    syncing.queue(catalog, storage, run_id=job, job=job)

    state = reconciled(storage)

    assert state.status is Status.FAILED
    assert "was removed" in state.traceback


def test_a_sync_whose_dag_run_has_ended_is_dead(reconciled, add_storage, catalog, run_dag):
    storage = add_storage()
    job = f"validate/{run_dag('validate').run_id}"
    syncing.queue(catalog, storage, run_id=job, job=job)

    assert reconciled(storage).status is Status.FAILED


@pytest.mark.parametrize("job", ["cli host:17", "hook"])
def test_a_sync_that_airflow_does_not_run_is_judged_by_its_lease_alone(
    reconciled, add_storage, catalog, job
):
    storage = add_storage()
    syncing.queue(catalog, storage, run_id="live", job=job)

    assert reconciled(storage).status is Status.QUEUED


def test_a_sync_whose_lease_ran_out_is_dead(reconciled, add_storage, catalog):
    storage = add_storage()
    syncing.queue(catalog, storage, run_id="dead", job="cli host:17", queue_seconds=-1)

    assert reconciled(storage).status is Status.FAILED
