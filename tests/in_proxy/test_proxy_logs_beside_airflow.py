"""Airflow, which the proxy loads to find connections, sets up logging for itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from labelport.catalog import Catalog
from proxies import project, proxy_process, somebody, storage, task

URI = "s3://media/cat.png"
CONNECTION = {
    "conn_type": "aws",
    "login": "AKIDEXAMPLE",
    "password": "a-secret-key",
    "extra": {"region_name": "eu-central-1"},
}


def test_a_catalog_from_a_connection_leaves_the_logs_ours(
    tmp_path: Path, sqlite_template: Path
) -> None:
    """Then Airflow is loaded before anything is served, and without any store."""
    path = shutil.copy(sqlite_template, tmp_path / "catalog.db")
    catalog = {"conn_type": "labelport", "extra": {"sqlite_path": str(path)}}
    environment = {
        "LABELPORT_CATALOG_URL": "",
        "AIRFLOW_CONN_LABELPORT_DEFAULT": json.dumps(catalog),
    }
    with proxy_process("", tmp_path, environment) as (client, _):
        assert client.send("GET", "/readyz").status == 200
    lines = map(json.loads, tmp_path.joinpath("server.log").read_text().splitlines())

    messages = [line["message"] for line in lines if line.get("logger") == "uvicorn.error"]
    assert any(message.startswith("Uvicorn running") for message in messages)


def test_every_line_of_the_log_is_json_once_airflow_is_loaded(
    tmp_path: Path, sqlite_template: Path
) -> None:
    """The request's line comes after a connection was looked up, and is as it was before."""
    url = f"sqlite:///{shutil.copy(sqlite_template, tmp_path / 'catalog.db')}"
    with Catalog(url) as catalog:
        cats = project(catalog, "Cats")
        storage(catalog, cats, "media", "s3://media", conn_id="logs")
        number = task(catalog, cats, {"image": URI})
        ann = somebody(catalog, "ann@example.org", cats)
    environment = {"AIRFLOW_CONN_LOGS": json.dumps(CONNECTION)}
    with proxy_process(url, tmp_path, environment) as (client, _):
        client.headers["Authorization"] = f"Bearer {ann.secret}"
        answer = client.get("tasks", number, URI)
    text = tmp_path.joinpath("server.log").read_text()
    lines = [json.loads(line) for line in text.splitlines()]

    assert answer.status == 303
    assert [line["outcome"] for line in lines if line.get("message") == "request"][-1] == "redirect"
    assert any("connection_wrapper" in str(line.get("filename")) for line in lines)
    assert "Signature" not in text and ann.secret not in text
