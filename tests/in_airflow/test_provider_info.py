"""What Airflow is told about this provider."""

import json
import subprocess
import sys
from importlib import resources
from importlib.metadata import entry_points

import jsonschema

from labelport.airflow.provider_info import get_provider_info


def test_the_provider_info_is_valid():
    schema = json.loads(
        resources.files("airflow").joinpath("provider_info.schema.json").read_text()
    )

    jsonschema.validate(get_provider_info(), schema)


def test_airflow_finds_the_provider_by_its_entry_point():
    found = [
        point.load()
        for point in entry_points(group="apache_airflow_provider", name="provider_info")
    ]

    assert get_provider_info in found


def test_airflow_lists_the_connection_type_with_its_form(home):
    from airflow.providers_manager import ProvidersManager

    manager = ProvidersManager()
    forms = {meta.connection_type: meta for meta in manager.iter_connection_type_hook_ui_metadata()}

    assert "airflow-provider-labelport" in manager.providers
    assert forms["labelport"].hook_class_name == "labelport.airflow.hooks.CatalogHook"
    assert forms["labelport"].field_behaviour["relabeling"]["schema"] == "Database"
    assert "extra__labelport__sqlite_path" in manager._connection_form_widgets_from_metadata


def test_the_provider_info_imports_nothing_heavy():
    """Airflow calls it at every start, in every process."""
    code = (
        "import sys; import labelport.airflow.provider_info as p; p.get_provider_info();"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert not {"airflow", "sqlalchemy", "aiohttp", "botocore"} & set(loaded.stdout.split())
