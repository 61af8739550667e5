"""Airflow on this machine: scheduler, dag processor, triggerer and API server in one command."""

from __future__ import annotations

import json
import os
import signal
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from demo import catalog, exporting, importing, rest
from demo.processes import free_ports, process, script
from demo.weed import S3Server

DAGS = Path(__file__).parent.parent / "dags"
_DAG_IDS = (importing.DAG_ID, exporting.DAG_ID, exporting.ON_CHANGE_DAG_ID)
#: Airflow's database is made anew, which a slow disk feels.
_START_SECONDS = 240


@contextmanager
def airflow(home: Path, server: S3Server) -> Iterator[tuple[str, rest.Airflow]]:
    """Start Airflow, ready to import from *server* and to export to it; its URL and a client."""
    port, worker_logs, triggerer_logs = free_ports(3)
    url = f"http://127.0.0.1:{port}"
    env = environment(home, server) | _settings(home, port, worker_logs, triggerer_logs)
    with (
        rest.connect(url) as client,
        process(
            [script("airflow"), "standalone"],
            home,
            signal.SIGTERM,
            lambda: client.ready(_DAG_IDS),
            env=env,
            log=home / "airflow.log",
            start_seconds=_START_SECONDS,
        ),
    ):
        yield url, client


def environment(home: Path, server: S3Server) -> dict[str, str]:
    """Ours, without what would lead to another Airflow's settings, but with where all is here."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    # Airflow starts its own parts by the name `airflow`.
    env["PATH"] = os.pathsep.join([sysconfig.get_path("scripts"), env.get("PATH", os.defpath)])
    env["NO_PROXY"] = env["no_proxy"] = "127.0.0.1,localhost"
    return env | {
        "AIRFLOW_HOME": str(home / "airflow"),
        "LABELPORT_CATALOG_URL": catalog.url(home),
        f"AIRFLOW_CONN_{catalog.CONN_ID.upper()}": _connection(server),
    }


def _settings(home: Path, port: int, worker_logs: int, triggerer_logs: int) -> dict[str, str]:
    url = f"http://127.0.0.1:{port}"
    settings = {
        "API__BASE_URL": url,
        "API__HOST": "127.0.0.1",
        "API__PORT": str(port),
        "CORE__DAGS_FOLDER": str(DAGS),
        "CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "CORE__LOAD_EXAMPLES": "False",
        "CORE__PARALLELISM": "4",  # each idle worker is a process
        "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "LOGGING__BASE_LOG_FOLDER": str(home / "airflow" / "logs"),
        "LOGGING__TRIGGER_LOG_SERVER_PORT": str(triggerer_logs),
        "LOGGING__WORKER_LOG_SERVER_PORT": str(worker_logs),
        "WORKERS__MIN_HEARTBEAT_INTERVAL": "1",  # the default holds short tasks up for 5 s
    }
    return {f"AIRFLOW__{name}": value for name, value in settings.items()}


def _connection(server: S3Server) -> str:
    """The bucket's connection, of Airflow's type ``aws``."""
    extra = {
        "region_name": server.region,
        "endpoint_url": server.endpoint,
        "config_kwargs": {"s3": {"addressing_style": "path"}},
    }
    return json.dumps(
        {
            "conn_type": "aws",
            "login": server.access_key_id,
            "password": server.secret_access_key,
            "extra": extra,
        }
    )
