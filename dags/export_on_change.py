"""Export annotations within seconds of their change, to every export storage of their project.

Created, updated and deleted annotations wake this dag through the watched asset. What it exports
is decided by each storage's own watermark, so that nothing is lost while the dag is paused, or
Airflow is down: the next change makes up for it, or else the next of the slow, regular runs.
"""

from datetime import timedelta

from airflow.sdk import DAG, AssetOrTimeSchedule, DeltaTriggerTimetable

from labelport.airflow.assets import EXPORTED, annotations_asset
from labelport.airflow.operators import ExportChangesOperator, FindChangesOperator

with DAG(
    "export_on_change",
    description="Changed annotations become objects, within seconds.",
    schedule=AssetOrTimeSchedule(
        timetable=DeltaTriggerTimetable(timedelta(minutes=10)), assets=[annotations_asset()]
    ),
    catchup=False,
    max_active_runs=1,
    tags=["labelport"],
    doc_md=__doc__,
    default_args={"retries": 3, "retry_delay": timedelta(seconds=10)},
):
    found = FindChangesOperator(task_id="find")
    ExportChangesOperator.partial(
        task_id="export", map_index_template="{{ task.storage }}", outlets=[EXPORTED]
    ).expand(storage=found.output)
