"""Tests that import Airflow. Its settings are made here, before the first of them is collected."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import airflow_home
from buckets import Bucket, aws_connection
from catalogs import any_storage, import_tasks
from labelport.catalog import Catalog, annotations, storages
from labelport.model import AnnotationRow, Direction, Storage, SyncState
from servers import S3Server, weed_server

if TYPE_CHECKING:
    from airflow.models.dagrun import DagRun
    from airflow.sdk import DAG

HOME = airflow_home.prepare()

AddStorage = Callable[..., Storage]
Annotate = Callable[..., list[int]]
RunDag = Callable[..., "DagRun"]


@pytest.fixture(scope="session")
def home() -> Path:
    """A real Airflow home with its database."""
    airflow_home.migrate()
    return HOME


@pytest.fixture(scope="session")
def weed() -> Iterator[S3Server]:
    with weed_server() as server:
        yield server


@pytest.fixture
def bucket(weed: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """An empty bucket, and the connection ``weed`` that opens it."""
    monkeypatch.setenv("AIRFLOW_CONN_WEED", aws_connection(weed))
    bucket = Bucket(weed, f"bucket-{uuid.uuid4().hex}")
    yield bucket
    bucket.client.close()


@pytest.fixture(scope="session")
def dags(home: Path) -> Mapping[str, DAG]:
    """Every dag, the shipped ones and those of the tests, by id."""
    from airflow.dag_processing.dagbag import DagBag

    bags = [DagBag(folder) for folder in (airflow_home.DAGS, airflow_home.TEST_DAGS)]
    assert [bag.import_errors for bag in bags] == [{}, {}]
    return {dag_id: dag for bag in bags for dag_id, dag in bag.dags.items()}


#: Said in every run: a dag keeps the params of its last ``test`` in this process.
DEFAULTS: Mapping[str, dict[str, Any]] = {
    "import_storage": {"shards": 4, "reimport_changed": False, "max_errors": None},
    "export_storage": {"shards": 4, "select": "changed", "max_errors": None},
}


@pytest.fixture
def run_dag(dags: Mapping[str, DAG]) -> RunDag:
    """Runs a dag to its end, retries included, and returns the dag run."""

    def run(dag_id: str, **params: Any) -> DagRun:
        return dags[dag_id].test(run_conf=DEFAULTS.get(dag_id, {}) | params)

    return run


@pytest.fixture
def catalog(
    sqlite_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Catalog]:
    """An empty catalog that the default connection opens."""
    path = shutil.copy(sqlite_template, tmp_path / "catalog.db")
    connection = {"conn_type": "labelport", "extra": {"sqlite_path": str(path)}}
    monkeypatch.setenv("AIRFLOW_CONN_LABELPORT_DEFAULT", json.dumps(connection))
    with Catalog(f"sqlite:///{path}") as catalog:
        yield catalog


@pytest.fixture
def add_storage(catalog: Catalog, bucket: Bucket) -> AddStorage:
    """Adds an import storage on the bucket to the catalog."""

    def add(name: str = "photos", prefix: str = "", **settings: Any) -> Storage:
        location = f"s3://{bucket.name}/{prefix}"
        with catalog.begin() as connection:
            return any_storage(connection, name, location=location, conn_id="weed", **settings)

    return add


@pytest.fixture
def labels(add_storage: AddStorage) -> Storage:
    """An export storage ``labels`` on the bucket, below ``out/``."""
    return add_storage("labels", "out", direction=Direction.EXPORT, can_delete_objects=True)


@pytest.fixture
def annotate(catalog: Catalog, add_storage: AddStorage) -> Annotate:
    """Makes *count* tasks with an annotation each; the annotations' ids."""
    photos = add_storage()

    def annotate(count: int) -> list[int]:
        row = AnnotationRow('[{"value": {"choices": ["cat"]}}]', completed_by="ann@example.org")
        with catalog.begin() as connection:
            keys = [f"{uuid.uuid4().hex}.jpg" for _ in range(count)]
            task_ids = import_tasks(connection, photos, keys)
            return [annotations.create(connection, task_id, row).id for task_id in task_ids]

    return annotate


@pytest.fixture
def state_of(catalog: Catalog) -> Callable[[Storage], SyncState]:
    """The latest sync of a storage."""

    def state(storage: Storage) -> SyncState:
        with catalog.read() as connection:
            return storages.state(connection, storage.id)

    return state
