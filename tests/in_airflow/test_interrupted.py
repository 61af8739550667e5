"""A shard that is stopped goes on where it was, in the next attempt or the next dag run."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import sqlalchemy as sa

from catalogs import any_storage
from labelport.catalog import Catalog, storages
from labelport.model import Status

FILES = 6_000


@pytest.fixture
def storage(catalog, tmp_path, monkeypatch):
    """A folder of task files, enough to be busy with for some seconds."""
    folder = tmp_path / "root" / "files"
    folder.mkdir(parents=True)
    for number in range(FILES):
        (folder / f"{number:05}.json").write_bytes(b'{"text": "%d"}' % number)
    monkeypatch.setenv("LABELPORT_LOCAL_ROOT", str(folder.parent))
    with catalog.begin() as connection:
        return any_storage(connection, location="file://files/")


def imported(catalog: Catalog) -> int:
    with catalog.read() as connection:
        return connection.scalar(sa.text("SELECT count(*) FROM tasks"))


def once_it_imports(catalog: Catalog, act) -> threading.Thread:
    """Calls *act* as soon as the first tasks are saved."""

    def watch():
        while not imported(catalog):
            time.sleep(0.01)
        act()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def status(catalog, storage):
    with catalog.read() as connection:
        return storages.state(connection, storage.id)


def test_a_terminated_shard_stops_and_its_retry_goes_on(run_dag, catalog, storage, capfd):
    before = []

    def terminate():
        before.append(imported(catalog))
        os.kill(os.getpid(), signal.SIGTERM)

    watcher = once_it_imports(catalog, terminate)
    result = run_dag("strict")
    watcher.join()

    assert result.state == "success"
    assert 0 < before[0] < FILES
    assert imported(catalog) == FILES
    assert "the shard was stopped" in capfd.readouterr().out
    assert status(catalog, storage).status is Status.COMPLETED
    assert status(catalog, storage).counters.created == FILES


def test_what_a_killed_dag_run_had_imported_is_kept(home, run_dag, catalog, storage):
    """kill -9 of the whole process; once its lease is over, the next run makes only the rest."""
    command = [sys.executable, "-m", "airflow", "dags", "test", "strict"]
    killed = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
    watcher = once_it_imports(catalog, lambda: os.killpg(killed.pid, signal.SIGKILL))
    killed.wait()
    watcher.join()
    before = imported(catalog)
    let_the_lease_end(catalog)

    result = run_dag("strict")

    assert result.state == "success"
    assert 0 < before < FILES
    assert imported(catalog) == FILES
    assert status(catalog, storage).status is Status.COMPLETED
    assert status(catalog, storage).counters.created == FILES - before


def let_the_lease_end(catalog: Catalog) -> None:
    """As half a minute of silence would."""
    with catalog.begin() as connection:
        connection.execute(
            sa.text("UPDATE storages SET lease_until = '2026-01-01 00:00:00.000000'")
        )
