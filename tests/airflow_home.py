"""A real Airflow home for the tests: settings first, then `import airflow`, then its database."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

#: The shipped dags, and those of the tests.
DAGS = Path(__file__).parent.parent / "dags"
TEST_DAGS = Path(__file__).parent / "in_airflow" / "dags"


_home: Path | None = None


def prepare() -> Path:
    """Point Airflow at an empty home of this process, the same one at every call.

    Airflow reads its settings once, at its first import: this must come before.
    """
    global _home
    if _home is not None:
        return _home
    if "airflow" in sys.modules:
        raise RuntimeError("airflow was imported before its settings were made")
    _home = Path(tempfile.mkdtemp(prefix="labelport-airflow-"))
    atexit.register(shutil.rmtree, _home, ignore_errors=True)
    os.environ |= {
        "AIRFLOW_HOME": str(_home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(
            [_bundle("shipped", DAGS), _bundle("tests", TEST_DAGS)]
        ),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(_home / "logs"),
    }
    return _home


def _bundle(name: str, folder: Path) -> dict[str, object]:
    return {
        "name": name,
        "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
        "kwargs": {"path": str(folder), "refresh_interval": 3600},
    }


def migrate() -> None:
    """Make the home's database (SQLite, about 3 s)."""
    from airflow.utils.db import initdb

    initdb()
