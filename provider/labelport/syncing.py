"""One sync of a storage: claim it, work on its shards under a lease, end it; find those that died.

A worker that holds a shard renews the lease from a timer thread, however long a read or a parse
takes. Nothing else prolongs a run's life and nobody who only looks can end it.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import traceback
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum

from labelport.catalog import Catalog, runs, shards, storages
from labelport.errors import LabelportError, SyncLost, SyncRefused
from labelport.model import Shard, ShardState, Status, Storage, SyncState

log = logging.getLogger(__name__)

#: How often a worker says that it lives.
PING_SECONDS = 10.0
#: A run in progress that was silent for so long is dead.
LEASE_SECONDS = 30.0
#: How long a run may wait in a queue, at its start or between two of its shards.
QUEUE_SECONDS = 3600.0


def queue(
    catalog: Catalog,
    storage: Storage,
    *,
    run_id: str,
    job: str,
    queue_seconds: float = QUEUE_SECONDS,
) -> None:
    """Claim *storage* for a run; the same run may do so again.

    :param job: what runs it, for people and for `reconcile`: ``dag id/run id``, or ``cli …``
    :param queue_seconds: how long the run may wait before its first shard begins

    Raises:
        SyncRefused: another run owns the storage.
    """
    with catalog.begin() as connection:
        if runs.claim(connection, storage.id, run_id=run_id, job=job, lease_seconds=queue_seconds):
            return
        state = storages.state(connection, storage.id)
    raise SyncRefused(
        f"storage {storage.name} is {state.status} by {state.last_sync_job}; wait for its end, or "
        f"see whether it died: its lease ends at {state.lease_until}"
    )


@contextmanager
def hold_shard(
    catalog: Catalog,
    storage: Storage,
    *,
    run_id: str,
    index: int,
    ping_seconds: float = PING_SECONDS,
    lease_seconds: float = LEASE_SECONDS,
    queue_seconds: float = QUEUE_SECONDS,
) -> Iterator[Shard]:
    """Own a shard, beating, until the block ends: then it is done, or failed with the error.

    A second worker that takes the same shard (a retry while the first still runs) wins; the first
    can write nothing more. A shard that is done already is handed out as such.

    Raises:
        SyncLost: the run does not own the storage, or lost it meanwhile.
    """
    shard = _take(catalog, storage, run_id, index, lease_seconds)
    if shard.state is ShardState.DONE:
        yield shard
        return
    with _beating(catalog, shard, ping_seconds, lease_seconds):
        try:
            yield shard
        except BaseException as error:
            with suppress(SyncLost):
                _release(catalog, shard, ShardState.FAILED, queue_seconds, error=_in_words(error))
            raise
    _release(catalog, shard, ShardState.DONE, queue_seconds)


def _take(
    catalog: Catalog, storage: Storage, run_id: str, index: int, lease_seconds: float
) -> Shard:
    with catalog.begin() as connection:
        if not runs.begin(connection, storage.id, run_id, lease_seconds=lease_seconds):
            raise SyncLost(f"run {run_id} does not own storage {storage.name} any more")
        shard = shards.take(
            connection,
            storage.id,
            run_id,
            index,
            owner=uuid.uuid4().hex,
            worker=f"{socket.gethostname()}:{os.getpid()}",
        )
    if shard is None:
        raise SyncLost(f"run {run_id} has no shard {index} on storage {storage.name}")
    return shard


def _release(
    catalog: Catalog,
    shard: Shard,
    state: ShardState,
    queue_seconds: float,
    *,
    error: str | None = None,
) -> None:
    """Let go of a shard; the run's other shards, or a retry, may wait for a worker a while.

    Raises `SyncLost` when somebody else owns it. The storage's row comes before the shard's here
    as everywhere, so that nobody deadlocks.
    """
    with catalog.begin() as connection:
        runs.ping(connection, shard.storage_id, shard.run_id, lease_seconds=queue_seconds)
        if not shards.release(connection, shard, state, error=error):
            raise SyncLost(f"run {shard.run_id} lost shard {shard.index}")


@contextmanager
def _beating(
    catalog: Catalog, shard: Shard, ping_seconds: float, lease_seconds: float
) -> Iterator[None]:
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(ping_seconds):
            try:
                with catalog.begin() as connection:
                    alive = runs.ping(
                        connection, shard.storage_id, shard.run_id, lease_seconds=lease_seconds
                    ) and shards.beat(connection, shard)
            except Exception:  # a thread's edge: the database may be back at the next beat
                log.exception("shard %d of run %s could not beat", shard.index, shard.run_id)
                continue
            if not alive:
                log.warning("shard %d of run %s lost its storage", shard.index, shard.run_id)
                return

    thread = threading.Thread(target=beat, name=f"beat {shard.run_id}/{shard.index}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def finish(catalog: Catalog, storage: Storage, *, run_id: str) -> SyncState:
    """End a run whose shards have all been tried: completed, with errors or not, or failed.

    Doing so twice changes nothing. Failed if a shard is not done, with what it said.

    Raises:
        SyncLost: another run owns the storage, or owned it last.
    """
    with catalog.begin() as connection:
        parts = shards.of_run(connection, storage.id, run_id)
        undone = [part for part in parts if part.state is not ShardState.DONE]
        if undone or not parts:
            said = shards.failures(connection, storage.id, run_id)
            reason = "\n".join(said) or _nothing_said(undone)
            ended = runs.end(connection, storage.id, run_id, Status.FAILED, traceback=reason)
        else:
            errors = runs.totals(connection, storage.id, run_id).errors
            status = Status.COMPLETED_WITH_ERRORS if errors else Status.COMPLETED
            ended = runs.end(connection, storage.id, run_id, status)
        state = storages.state(connection, storage.id)
    if not ended and state.run_id != run_id:
        raise SyncLost(
            f"run {run_id} does not own storage {storage.name}: it never claimed it, or was "
            f"replaced by {state.last_sync_job}"
        )
    return state


def fail(catalog: Catalog, storage: Storage, *, run_id: str, error: BaseException) -> SyncState:
    """End a run that cannot go on, before or beside its shards; a run that ended is left so."""
    with catalog.begin() as connection:
        runs.end(connection, storage.id, run_id, Status.FAILED, traceback=_in_words(error))
        return storages.state(connection, storage.id)


class JobState(StrEnum):
    """What is known of the job that runs a sync."""

    ALIVE = "alive"  #: it is queued or running, says whoever runs it
    ENDED = "ended"  #: it ended without ending the sync
    MISSING = "missing"  #: it was removed
    UNKNOWN = "unknown"  #: nobody can tell; only the lease decides


@dataclass(frozen=True)
class DeadRun:
    """A run that `reconcile` marked failed, and why."""

    storage: str
    run_id: str
    job: str
    cause: str


def reconcile(
    catalog: Catalog, job_state: Callable[[str], JobState] = lambda job: JobState.UNKNOWN
) -> Sequence[DeadRun]:
    """Mark the runs that died as failed, with a traceback that says of what.

    Dead is a run whose lease has expired, or whose job is known to be gone.

    :param job_state: told a run's ``last_sync_job``, what has become of it
    """
    with catalog.read() as connection:
        suspects = runs.active(connection)
    return [
        dead for run in suspects if (dead := _bury(catalog, run, job_state(run.job))) is not None
    ]


def _bury(catalog: Catalog, run: runs.ActiveRun, job: JobState) -> DeadRun | None:
    gone = job in (JobState.ENDED, JobState.MISSING)
    if not (run.expired or gone):
        return None
    with catalog.begin() as connection:
        workers = shards.workers(connection, run.storage_id, run.run_id)
        said = shards.failures(connection, run.storage_id, run.run_id)
        cause = _cause(run, job, workers, said)
        if not runs.end(
            connection,
            run.storage_id,
            run.run_id,
            Status.FAILED,
            traceback=cause,
            expired=not gone,
        ):
            return None  # it ended, or beat, while we looked
    log.warning("run %s of storage %s is dead: %s", run.run_id, run.name, cause)
    return DeadRun(run.name, run.run_id, run.job, cause)


def _cause(run: runs.ActiveRun, job: JobState, workers: Sequence[str], said: Sequence[str]) -> str:
    """Which of the five ways to die it was, as far as can be known from here."""
    if said:
        return "An exception ended the sync:\n" + "\n".join(said)
    if job is JobState.MISSING:
        return f"The job {run.job} was removed from the queue before the sync ended."
    if run.status is Status.QUEUED:
        return f"The job {run.job} waited longer than its lease and never began."
    silence = (
        f"The worker sent no heartbeat for {run.silent_seconds:.0f} s"
        if run.silent_seconds is not None
        else "The worker never sent a heartbeat"
    )
    fate = "; ".join(_fate(worker) for worker in workers) or "no worker held a shard"
    ended = f" The job {run.job} has ended." if job is JobState.ENDED else ""
    return f"{silence}: {fate}.{ended} Sync again: it goes on where this run stopped."


def _fate(worker: str) -> str:
    host, _, pid = worker.rpartition(":")
    if host != socket.gethostname():
        return (
            f"process {pid} on {host} is out of sight from here: its host was redeployed, lost "
            "its network, or killed it"
        )
    if os.path.exists(f"/proc/{pid}"):
        return f"process {pid} on {host} still exists: it hangs, or is stopped"
    return (
        f"process {pid} on {host} is gone without a word: killed by hand, or by the kernel for "
        "want of memory"
    )


def _nothing_said(undone: Sequence[Shard]) -> str:
    if not undone:
        return "The sync was never planned: its first task failed or was skipped."
    numbers = ", ".join(str(shard.index) for shard in undone)
    return (
        f"Shard {numbers} of the sync did not end: its worker was killed, or never began. "
        "Sync again: it goes on where this run stopped."
    )


def _in_words(error: BaseException) -> str:
    """An error as a status shows it: ours by their message, others with their traceback."""
    if isinstance(error, LabelportError):
        return f"{type(error).__name__}: {error}"
    if isinstance(error, Exception):
        return "".join(traceback.format_exception(error))
    return f"{type(error).__name__}: the worker was told to stop"
