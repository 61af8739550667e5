"""Mark syncs that died as failed, with the cause, so that their storages can be synced again."""

from datetime import timedelta

from airflow.sdk import DAG

from labelport.airflow.operators import ReconcileSyncsOperator

with DAG(
    "reconcile_syncs",
    description="Find syncs whose worker or dag run died.",
    schedule=timedelta(minutes=5),
    catchup=False,
    max_active_runs=1,
    tags=["labelport"],
    doc_md=__doc__,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
):
    ReconcileSyncsOperator(task_id="reconcile")
