"""Import one storage: by hand with the storage's name, or on a schedule.

To import on a schedule, copy this file, set ``schedule`` and give ``storage`` a default.
"""

from datetime import timedelta

from airflow.sdk import DAG, Param

from labelport.airflow.task_groups import ImportStorageTaskGroup

with DAG(
    "import_storage",
    description="Objects of a storage become labeling tasks.",
    schedule=None,
    catchup=False,
    tags=["labelport"],
    doc_md=__doc__,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
    params={
        "storage": Param(
            type="string", minLength=1, description="The storage's name in the catalog."
        ),
        "shards": Param(
            4, type="integer", minimum=1, maximum=256, description="Key ranges, a task for each."
        ),
        "reimport_changed": Param(
            False, type="boolean", description="Import objects again whose bytes have changed."
        ),
        "max_errors": Param(
            None,
            type=["null", "integer"],
            minimum=0,
            description="Fail beyond this many bad objects and rows; empty: never.",
        ),
    },
):
    ImportStorageTaskGroup(
        group_id="import",
        storage="{{ params.storage }}",
        shards="{{ params.shards }}",
        reimport_changed="{{ params.reimport_changed }}",
        max_errors="{{ params.max_errors }}",
    )
