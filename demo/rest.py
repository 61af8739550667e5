"""Airflow's REST API, as far as a dag run needs it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx

#: Components that must report themselves healthy before a dag run can start.
_COMPONENTS = ("metadatabase", "scheduler", "dag_processor", "triggerer")


class Airflow:
    """A client of one Airflow whose every visitor is an admin."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def ready(self, dag_ids: Iterable[str]) -> bool:
        """Whether every component is healthy and the dags are known."""
        try:
            health = self._client.get("/api/v2/monitor/health")
            if health.status_code != httpx.codes.OK:
                return False
            parts = health.json()
            if any((parts.get(name) or {}).get("status") != "healthy" for name in _COMPONENTS):
                return False
            self._log_in()
            return all(
                self._client.get(f"/api/v2/dags/{dag_id}").status_code == httpx.codes.OK
                for dag_id in dag_ids
            )
        except httpx.TransportError:
            time.sleep(0.2)
            return False

    def _log_in(self) -> None:
        if "Authorization" not in self._client.headers:
            token = self._json(self._client.get("/auth/token"))["access_token"]
            self._client.headers["Authorization"] = f"Bearer {token}"

    def unpause(self, dag_id: str) -> None:
        """Let the dag's runs start."""
        self._json(self._client.patch(f"/api/v2/dags/{dag_id}", json={"is_paused": False}))

    def start(self, dag_id: str, **params: object) -> str:
        """Start a dag run now; its run id."""
        request = {"logical_date": None, "conf": params}
        answer = self._client.post(f"/api/v2/dags/{dag_id}/dagRuns", json=request)
        return str(self._json(answer)["dag_run_id"])

    def state(self, dag_id: str, run_id: str) -> str:
        """queued, running, success or failed."""
        answer = self._client.get(f"/api/v2/dags/{dag_id}/dagRuns/{run_id}")
        return str(self._json(answer)["state"])

    def asset_runs(self, dag_id: str) -> list[str]:
        """The states of the dag runs that asset events have started."""
        answer = self._client.get(f"/api/v2/dags/{dag_id}/dagRuns")
        runs = self._json(answer)["dag_runs"]
        return [str(run["state"]) for run in runs if run["run_type"] == "asset_triggered"]

    def import_errors(self) -> list[str]:
        """What is wrong with dag files, if anything."""
        errors = self._json(self._client.get("/api/v2/importErrors"))["import_errors"]
        return [str(error["stack_trace"]) for error in errors]

    def _json(self, answer: httpx.Response) -> dict[str, Any]:
        if answer.is_error:
            raise RuntimeError(f"Airflow answered {answer.status_code}: {answer.text[:500]}")
        body: dict[str, Any] = answer.json()
        return body


@contextmanager
def connect(url: str) -> Iterator[Airflow]:
    """A client of the Airflow at *url*; no proxy of the environment comes between."""
    with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
        yield Airflow(client)
