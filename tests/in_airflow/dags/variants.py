"""Dags of the tests: what the shipped ones do not set."""

from datetime import timedelta

from airflow.sdk import DAG

from labelport.airflow.operators import DeleteExportedOperator, ValidateStorageOperator
from labelport.airflow.sensors import NewAnnotationsSensor, NewObjectsSensor
from labelport.airflow.task_groups import ExportStorageTaskGroup, ImportStorageTaskGroup

with DAG("one_line"):
    ImportStorageTaskGroup(group_id="photos", storage="photos")

with DAG("strict", params={"storage": "photos"}):
    ImportStorageTaskGroup(
        storage="{{ params.storage }}",
        shards=1,
        fail_on_errors=True,
        default_args={"retries": 1, "retry_delay": timedelta(0)},
    )

with DAG("validate", params={"storage": "photos"}):
    ValidateStorageOperator(task_id="validate", storage="{{ params.storage }}")

with DAG("export_one_line"):
    ExportStorageTaskGroup(storage="labels", validate=True)

with DAG("delete_exported"):
    DeleteExportedOperator(task_id="delete", storage="labels")

with DAG("waiting"):
    NewAnnotationsSensor(task_id="annotations", storage="labels", deferrable=True)
    NewObjectsSensor(task_id="objects", storage="photos", deferrable=True)
