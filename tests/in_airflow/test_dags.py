"""The dags as files: they load, they survive serialization, they are cheap to parse."""

import json
import subprocess
import sys
from itertools import pairwise

import pytest

import airflow_home

SHIPPED = {"export_on_change", "export_storage", "import_storage", "reconcile_syncs"}
TESTS = {"export_one_line", "one_line", "strict", "validate", "waiting"}


def test_the_shipped_dags_load(dags):
    assert set(dags) >= SHIPPED


@pytest.mark.parametrize("dag_id", sorted(SHIPPED | TESTS))
def test_a_dag_survives_serialization(dags, dag_id):
    from airflow.serialization.serialized_objects import DagSerialization

    text = json.dumps(DagSerialization.to_dict(dags[dag_id]))
    again = DagSerialization.from_dict(json.loads(text))

    assert again.task_ids == dags[dag_id].task_ids
    for task in dags[dag_id].tasks:
        assert list(again.get_task(task.task_id).template_fields) == list(task.template_fields)


STEPS = ("validate", "plan", "shard", "finish")


def test_one_line_wires_the_import(dags):
    dag = dags["one_line"]

    assert set(dag.task_ids) == {f"photos.{step}" for step in STEPS}
    for before, after in pairwise(STEPS):
        assert dag.get_task(f"photos.{after}").upstream_task_ids == {f"photos.{before}"}
    assert dag.get_task("photos.finish").trigger_rule == "all_done"


def test_one_line_wires_the_export(dags):
    dag = dags["export_one_line"]

    assert set(dag.task_ids) == {f"export.{step}" for step in STEPS}
    for before, after in pairwise(STEPS):
        assert dag.get_task(f"export.{after}").upstream_task_ids == {f"export.{before}"}
    assert dag.get_task("export.finish").trigger_rule == "all_done"
    assert dag.get_task("export.finish").fail_on_errors is True


def test_the_watched_asset_starts_the_automatic_export(dags):
    (asset,) = dags["export_on_change"].timetable.asset_condition.objects
    (watcher,) = asset.watchers

    assert watcher.trigger.serialize()[0].endswith("AnnotationEventsTrigger")
    assert dags["export_on_change"].max_active_runs == 1


@pytest.mark.parametrize("module", ["operators", "task_groups", "hooks", "sensors"])
def test_parsing_loads_no_cloud_library_and_no_engine(home, module):
    """What a dag file imports, it imports every few seconds."""
    heavy = {"sqlalchemy", "alembic", "aiohttp", "boto3", "botocore", "airflow.providers.amazon"}
    engine = {"labelport.importing", "labelport.catalog", "labelport.stores", "labelport.formats"}
    ours = loaded_by(f"labelport.airflow.{module}")
    theirs = loaded_by("airflow.sdk.bases.operator", "airflow.sdk.bases.hook")

    assert not (ours - theirs) & (heavy | engine)


def test_parsing_the_shipped_dags_looks_nothing_up(home):
    """No connection, no variable, no catalog: names are resolved when tasks run."""
    files = sorted(airflow_home.DAGS.glob("*.py"))
    code = "import runpy, sys; [runpy.run_path(path) for path in sys.argv[1:]]"
    environment = {"AIRFLOW_HOME": str(home), "LABELPORT_CATALOG_URL": "nowhere://"}

    subprocess.run([sys.executable, "-c", code, *map(str, files)], env=environment, check=True)


def loaded_by(*modules: str) -> set[str]:
    code = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    command = [sys.executable, "-c", code]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
