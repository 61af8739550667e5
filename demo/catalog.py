"""The project of the demonstration and its storages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from demo.bucket import BUCKET, EXPORTS
from labelport.catalog import Catalog, events, ledger, problems, projects, storages
from labelport.catalog.ledger import LedgerCounts
from labelport.catalog.upgrading import upgrade
from labelport.model import Direction, ExportLink, Problem, Status, Storage, SyncState

#: The Airflow connection to the bucket; the standalone Airflow has it in its environment.
CONN_ID = "demo_s3"

_NEVER = SyncState(Status.INITIALIZED, None, None, None, None, None)


def url(home: Path) -> str:
    """The URL of the catalog in the demonstration's folder."""
    return f"sqlite:///{home / 'labelport.db'}"


class Storages(NamedTuple):
    """The project's storages that are synced."""

    media: Storage
    files: Storage
    exports: Storage


def make(home: Path) -> tuple[Catalog, Storages]:
    """A new catalog with a project: it imports media and task files, and exports annotations.

    One more storage only answers for the sounds.
    """
    catalog = Catalog(url(home))
    upgrade(catalog)
    with catalog.begin() as connection:
        project = projects.add(connection, "Demonstration")
        media = storages.add(
            connection,
            project.id,
            "media",
            f"s3://{BUCKET}/media",
            conn_id=CONN_ID,
            use_blob_urls=True,
            regex_filter=r".*\.(png|jpe?g|wav|flac|mp3|ogg)$",
            description="every picture and sound becomes a task",
        )
        files = storages.add(
            connection,
            project.id,
            "task-files",
            f"s3://{BUCKET}/tasks",
            conn_id=CONN_ID,
            description="JSON and JSONL objects hold the tasks",
        )
        storages.add(
            connection,
            project.id,
            "sounds",
            f"s3://{BUCKET}/media/sounds",
            conn_id=CONN_ID,
            presign=False,
            synchronizable=False,
            description="the proxy streams sounds, and redirects to all else",
        )
        exports = storages.add(
            connection,
            project.id,
            "exports",
            f"s3://{EXPORTS}/annotations",
            Direction.EXPORT,
            conn_id=CONN_ID,
            key_template="{source_stem}.{annotation_id}.json",
            can_delete_objects=True,
            description="every annotation becomes an object, and goes with it",
        )
    return catalog, Storages(media, files, exports)


@dataclass
class Followed:
    """A storage whose sync is being watched."""

    storage: Storage
    dag_id: str
    run_id: str  #: Airflow's dag run
    state: SyncState = _NEVER
    dag_run: str = "queued"  #: what Airflow says of it

    @property
    def ended(self) -> bool:
        return self.dag_run in ("success", "failed")

    @property
    def failed(self) -> bool:
        """A failed sync is not waited for, though Airflow would try once more minutes later."""
        return self.dag_run == "failed" or self.state.status is Status.FAILED

    @property
    def seconds(self) -> float:
        """How long the sync has worked: from its first shard's beginning to the end."""
        if self.state.time_in_progress is None:
            return 0.0
        ended = self.state.time_completed or self.state.time_failure or datetime.now(UTC)
        return (ended - self.state.time_in_progress).total_seconds()


def read(catalog: Catalog, followed: Sequence[Followed]) -> None:
    """Look up where every sync stands."""
    with catalog.read() as connection:
        for each in followed:
            each.state = storages.state(connection, each.storage.id)


def error_rows(catalog: Catalog, storage: Storage) -> list[Problem]:
    """The objects and rows of the latest sync that could not be imported."""
    with catalog.read() as connection:
        return problems.page(connection, storage.id).problems


def ledger_rows(catalog: Catalog, storage: Storage) -> list[ExportLink]:
    """The first rows of an export storage's ledger, a hundred at most."""
    with catalog.read() as connection:
        return ledger.page(connection, storage.id)


def ledger_counts(catalog: Catalog, storage: Storage) -> LedgerCounts:
    """How an export storage's ledger stands."""
    with catalog.read() as connection:
        return ledger.counts(connection, storage.id)


def up_to_date(catalog: Catalog, storage: Storage) -> bool:
    """Whether an export storage is done with all that has happened to annotations."""
    with catalog.read() as connection:
        newest = events.newest(connection, storage.project_id)
        return events.watermark(connection, storage.id) >= newest
