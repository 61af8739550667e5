"""Each step of an import and of an export as a task, and what tends all syncs.

A dag file imports this at every parse: nothing heavy is imported before `execute`, and nothing
is looked up before templates are rendered.
"""

from labelport.airflow.operators.exporting import (
    ExportShardOperator,
    FinishExportOperator,
    PlanExportOperator,
)
from labelport.airflow.operators.exporting_at_once import (
    DeleteExportedOperator,
    ExportChangesOperator,
    FindChangesOperator,
)
from labelport.airflow.operators.importing import ImportShardOperator, PlanImportOperator
from labelport.airflow.operators.shards import DEFAULT_SHARDS
from labelport.airflow.operators.storage import StorageOperator
from labelport.airflow.operators.syncing import FinishSyncOperator, ReconcileSyncsOperator
from labelport.airflow.operators.validating import ValidateStorageOperator

__all__ = [
    "DEFAULT_SHARDS",
    "DeleteExportedOperator",
    "ExportChangesOperator",
    "ExportShardOperator",
    "FindChangesOperator",
    "FinishExportOperator",
    "FinishSyncOperator",
    "ImportShardOperator",
    "PlanExportOperator",
    "PlanImportOperator",
    "ReconcileSyncsOperator",
    "StorageOperator",
    "ValidateStorageOperator",
]
