"""Export to one storage: by hand with the storage's name, or on a schedule.

To export on a schedule, copy this file, set ``schedule`` and give ``storage`` a default. To export
within seconds of every change, use ``export_on_change``.
"""

from datetime import timedelta

from airflow.sdk import DAG, Param

from labelport.airflow.task_groups import ExportStorageTaskGroup

with DAG(
    "export_storage",
    description="Annotations become objects of a storage.",
    schedule=None,
    catchup=False,
    tags=["labelport"],
    doc_md=__doc__,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
    params={
        "storage": Param(
            type="string", minLength=1, description="The export storage's name in the catalog."
        ),
        "select": Param(
            "changed",
            type="string",
            enum=["changed", "new", "all"],
            description="new: never exported, or failed; changed: also those that differ.",
        ),
        "shards": Param(
            4, type="integer", minimum=1, maximum=256, description="Ranges of ids, a task for each."
        ),
        "max_errors": Param(
            None,
            type=["null", "integer"],
            minimum=0,
            description="Stop beyond this many failed annotations; empty: never.",
        ),
    },
):
    ExportStorageTaskGroup(
        group_id="export",
        storage="{{ params.storage }}",
        select="{{ params.select }}",
        shards="{{ params.shards }}",
        max_errors="{{ params.max_errors }}",
    )
