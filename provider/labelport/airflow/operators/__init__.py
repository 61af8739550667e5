"""Each step of an import and of an export as a task, and what tends all syncs.

A dag file imports this at every parse: nothing heavy is imported before `execute`, and nothing
is looked up before templates are rendered.
"""

from labelport.airflow.operators.importing import ImportShardOperator, PlanImportOperator
from labelport.airflow.operators.shards import DEFAULT_SHARDS
from labelport.airflow.operators.storage import StorageOperator
from labelport.airflow.operators.syncing import FinishSyncOperator, ReconcileSyncsOperator
from labelport.airflow.operators.validating import ValidateStorageOperator

__all__ = [
    "DEFAULT_SHARDS",
    "FinishSyncOperator",
    "ImportShardOperator",
    "PlanImportOperator",
    "ReconcileSyncsOperator",
    "StorageOperator",
    "ValidateStorageOperator",
]
