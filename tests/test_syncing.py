"""Claims, leases, heartbeats and the death of runs, on both databases."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest
import sqlalchemy as sa

from catalogs import any_storage
from labelport import syncing
from labelport.catalog import Catalog, runs, schema, shards, storages
from labelport.catalog.batches import Batch, BatchWriter, Piece, Target
from labelport.errors import SyncLost, SyncRefused
from labelport.importing import ImportOptions, import_shard, import_storage
from labelport.model import (
    ALL_KEYS,
    Counters,
    ObjectMeta,
    ObjectState,
    Shard,
    ShardState,
    Status,
    Storage,
    SyncState,
    TaskRow,
)
from labelport.stores.memory import MemoryStore
from labelport.syncing import JobState
from memory_buckets import Bucket


@pytest.fixture
def storage(catalog: Catalog) -> Storage:
    with catalog.begin() as connection:
        return any_storage(connection, use_blob_urls=True)


def state(catalog: Catalog, storage: Storage) -> SyncState:
    with catalog.read() as connection:
        return storages.state(connection, storage.id)


def queue(catalog: Catalog, storage: Storage, run_id: str, seconds: float = 60) -> None:
    syncing.queue(catalog, storage, run_id=run_id, job=f"dag/{run_id}", queue_seconds=seconds)


def planned(catalog: Catalog, storage: Storage, run_id: str, parts: int = 1) -> None:
    queue(catalog, storage, run_id)
    with catalog.begin() as connection:
        shards.create(connection, storage.id, run_id, [ALL_KEYS] * parts)


def one_task(key: str) -> Batch:
    target = Target(ObjectMeta(key, 1, "etag"))
    return Batch([Piece(target, ObjectState.DONE, [TaskRow(-1, "{}")], 0)], checkpoint=key)


def test_a_sync_goes_from_initialized_to_completed(catalog: Catalog, storage: Storage) -> None:
    seen = [state(catalog, storage).status]
    planned(catalog, storage, "one")
    seen.append(state(catalog, storage).status)
    with syncing.hold_shard(catalog, storage, run_id="one", index=0) as shard:
        seen.append(state(catalog, storage).status)
        BatchWriter(catalog, storage, shard).save(one_task("a"))
    ended = syncing.finish(catalog, storage, run_id="one")

    assert seen == [Status.INITIALIZED, Status.QUEUED, Status.IN_PROGRESS]
    assert (ended.status, ended.last_sync_count) == (Status.COMPLETED, 1)
    assert ended.last_sync_job == "dag/one"
    assert ended.time_queued and ended.time_in_progress and ended.time_completed
    assert ended.time_queued <= ended.time_in_progress <= ended.time_completed
    assert ended.lease_until is None
    assert ended.meta["duration"] >= 0  # type: ignore[operator]


def test_one_of_eight_claims_wins(catalog_url: str) -> None:
    with Catalog(catalog_url) as catalog:
        with catalog.begin() as connection:
            storage = any_storage(connection)
        barrier = threading.Barrier(8)

        def claim(number: int) -> bool:
            barrier.wait()
            try:
                queue(catalog, storage, f"run-{number}")
            except SyncRefused:
                return False
            return True

        for _ in range(5):
            with ThreadPoolExecutor(8) as pool:
                won = list(pool.map(claim, range(8)))
            assert won.count(True) == 1
            syncing.fail(
                catalog, storage, run_id=f"run-{won.index(True)}", error=RuntimeError("next round")
            )


def test_a_refusal_names_who_holds_the_storage(catalog: Catalog, storage: Storage) -> None:
    queue(catalog, storage, "first")

    with pytest.raises(SyncRefused, match="dag/first"):
        queue(catalog, storage, "second")


def test_a_run_may_claim_its_storage_twice(catalog: Catalog, storage: Storage) -> None:
    planned(catalog, storage, "one")
    queue(catalog, storage, "one")

    assert state(catalog, storage).attempts == 1
    with catalog.read() as connection:
        assert len(shards.of_run(connection, storage.id, "one")) == 1


def test_different_storages_sync_side_by_side(catalog: Catalog, storage: Storage) -> None:
    with catalog.begin() as connection:
        other = any_storage(connection, "other")
    queue(catalog, storage, "one")

    queue(catalog, other, "two")

    assert state(catalog, other).status is Status.QUEUED


def test_an_expired_lease_lets_the_next_run_in(catalog: Catalog, storage: Storage) -> None:
    queue(catalog, storage, "dead", seconds=-1)

    queue(catalog, storage, "next")

    assert state(catalog, storage).run_id == "next"


def test_a_run_declared_dead_cannot_beat(catalog: Catalog, storage: Storage) -> None:
    """Neither its heartbeat nor its batches change anything any more."""
    planned(catalog, storage, "one")
    with (
        pytest.raises(SyncLost),
        syncing.hold_shard(catalog, storage, run_id="one", index=0, lease_seconds=-1) as shard,
    ):
        assert len(syncing.reconcile(catalog)) == 1
        with catalog.begin() as connection:
            assert not runs.ping(connection, storage.id, "one", lease_seconds=30)
            assert not shards.beat(connection, shard)
        BatchWriter(catalog, storage, shard).save(one_task("a"))

    assert number_of_tasks(catalog) == 0


def test_the_first_owner_of_a_shard_is_fenced_when_a_second_takes_it(
    catalog: Catalog, storage: Storage
) -> None:
    planned(catalog, storage, "one")
    with (
        pytest.raises(SyncLost),
        syncing.hold_shard(catalog, storage, run_id="one", index=0) as first,
        syncing.hold_shard(catalog, storage, run_id="one", index=0) as second,
    ):
        BatchWriter(catalog, storage, second).save(one_task("a"))
        BatchWriter(catalog, storage, first).save(one_task("b"))

    assert number_of_tasks(catalog) == 1


def test_two_workers_that_meet_at_one_key_make_one_task(catalog: Catalog, storage: Storage) -> None:
    planned(catalog, storage, "one", parts=2)
    with (
        syncing.hold_shard(catalog, storage, run_id="one", index=0) as first,
        syncing.hold_shard(catalog, storage, run_id="one", index=1) as second,
    ):
        added = [
            BatchWriter(catalog, storage, shard).save(one_task("a")) for shard in (first, second)
        ]

    assert [counters.created for counters in added] == [1, 0]
    assert number_of_tasks(catalog) == 1


def test_four_workers_on_overlapping_shards_make_every_task_once(catalog_url: str) -> None:
    """Media and rows of files alike: a unique constraint decides, the loser looks again."""
    rows = "\n".join(f'{{"n": {n}}}' for n in range(12_000))
    bucket = Bucket({f"img/{n:05}": b"x" for n in range(8_000)} | {"img/rows.jsonl": rows})
    for blob, expected in ((True, 8_001), (False, 12_000)):
        with Catalog(catalog_url) as catalog:
            with catalog.begin() as connection:
                prefix = "img" if blob else ""
                storage = any_storage(
                    connection,
                    f"overlap-{blob}",
                    location=bucket.location(prefix),
                    use_blob_urls=blob,
                    regex_filter=None if blob else r".*\.jsonl",
                    allow_overlap=True,
                )
                before = connection.scalar(sa.select(sa.func.count()).select_from(schema.tasks))
            planned(catalog, storage, "one", parts=4)

        def work(index: int, storage: Storage = storage) -> None:
            with Catalog(catalog_url) as own:
                asyncio.run(
                    import_shard(own, MemoryStore(bucket.name), storage, run_id="one", index=index)
                )

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))

        with Catalog(catalog_url) as catalog:
            ended = syncing.finish(catalog, storage, run_id="one")
            assert number_of_tasks(catalog) - before == expected
            assert ended.counters.created == expected


def test_readers_never_end_a_run_that_beats(catalog: Catalog, storage: Storage) -> None:
    """A long read, many leases long, while somebody polls: not one false failure."""
    bucket = Bucket({"a.json": b'{"n": 1}'})
    with catalog.begin() as connection:
        slow = any_storage(connection, "slow", location=bucket.location())
    seen = set()

    class Slow(MemoryStore):
        async def read(self, key: str, *, max_bytes: int) -> tuple[bytes, ObjectMeta]:
            for _ in range(20):
                await asyncio.sleep(0.1)
                seen.add(state(catalog, slow).status)
                assert syncing.reconcile(catalog) == []
            return await super().read(key, max_bytes=max_bytes)

    ended = import_storage(
        catalog,
        lambda storage: Slow(storage.bucket),
        slow,
        job="test",
        options=ImportOptions(ping_seconds=0.1, lease_seconds=0.7),
    )

    assert seen == {Status.IN_PROGRESS}
    assert ended.status is Status.COMPLETED


def test_reconcile_leaves_living_runs_alone(catalog: Catalog, storage: Storage) -> None:
    queue(catalog, storage, "one")

    assert syncing.reconcile(catalog, lambda job: JobState.ALIVE) == []
    assert state(catalog, storage).status is Status.QUEUED


def _worker(catalog: Catalog, storage: Storage, worker: str) -> None:
    with catalog.begin() as connection:
        assert runs.begin(connection, storage.id, "one", lease_seconds=-1)
        shards.take(connection, storage.id, "one", 0, owner="me", worker=worker)


def _free_pid() -> int:
    return next(pid for pid in count(2**22 - 1, -1) if not os.path.exists(f"/proc/{pid}"))


HOST = socket.gethostname()
DEATHS = {
    "killed": (f"{HOST}:{_free_pid()}", JobState.UNKNOWN, "killed by hand, or by the kernel"),
    "redeployed": ("elsewhere:7", JobState.UNKNOWN, "host was redeployed"),
    "hanging": (f"{HOST}:{os.getpid()}", JobState.UNKNOWN, "still exists"),
    "removed": ("elsewhere:7", JobState.MISSING, "removed from the queue"),
    "ended": ("elsewhere:7", JobState.ENDED, "has ended"),
}


@pytest.mark.parametrize("death", DEATHS)
def test_the_traceback_of_a_dead_run_says_how_it_died(
    catalog: Catalog, storage: Storage, death: str
) -> None:
    worker, job, words = DEATHS[death]
    planned(catalog, storage, "one")
    _worker(catalog, storage, worker)

    dead = syncing.reconcile(catalog, lambda _: job)

    found = state(catalog, storage)
    assert found.status is Status.FAILED
    assert found.traceback is not None and words in found.traceback
    assert [run.cause for run in dead] == [found.traceback]
    assert syncing.reconcile(catalog, lambda _: job) == []


def test_an_exception_is_the_cause_that_its_shard_told(catalog: Catalog, storage: Storage) -> None:
    planned(catalog, storage, "one")
    with (
        pytest.raises(ZeroDivisionError),
        syncing.hold_shard(catalog, storage, run_id="one", index=0),
    ):
        _ = 1 / 0

    syncing.reconcile(catalog, lambda _: JobState.ENDED)

    told = state(catalog, storage).traceback
    assert told is not None and "ZeroDivisionError" in told


def test_a_job_that_never_left_the_queue_is_told(catalog: Catalog, storage: Storage) -> None:
    queue(catalog, storage, "one", seconds=-1)

    (dead,) = syncing.reconcile(catalog)

    assert "never began" in dead.cause


def test_a_retried_shard_revives_its_run(catalog: Catalog, storage: Storage) -> None:
    """Airflow tries a task again minutes after its worker died and was found dead."""
    planned(catalog, storage, "one")
    _worker(catalog, storage, "elsewhere:7")
    syncing.reconcile(catalog)

    with syncing.hold_shard(catalog, storage, run_id="one", index=0) as shard:
        BatchWriter(catalog, storage, shard).save(one_task("a"))

    assert syncing.finish(catalog, storage, run_id="one").status is Status.COMPLETED


def test_a_dead_run_is_not_revived_once_another_has_begun(
    catalog: Catalog, storage: Storage
) -> None:
    planned(catalog, storage, "one")
    _worker(catalog, storage, "elsewhere:7")
    planned(catalog, storage, "two")

    with pytest.raises(SyncLost), syncing.hold_shard(catalog, storage, run_id="one", index=0):
        pass
    with pytest.raises(SyncLost):
        syncing.finish(catalog, storage, run_id="one")
    assert state(catalog, storage).run_id == "two"


def test_an_undone_shard_fails_the_run(catalog: Catalog, storage: Storage) -> None:
    planned(catalog, storage, "one", parts=2)
    with syncing.hold_shard(catalog, storage, run_id="one", index=0):
        pass

    ended = syncing.finish(catalog, storage, run_id="one")

    assert ended.status is Status.FAILED
    assert ended.traceback is not None and "Shard 1" in ended.traceback


def test_finishing_twice_changes_nothing(catalog: Catalog, storage: Storage) -> None:
    planned(catalog, storage, "one")
    with syncing.hold_shard(catalog, storage, run_id="one", index=0):
        pass

    assert syncing.finish(catalog, storage, run_id="one") == syncing.finish(
        catalog, storage, run_id="one"
    )


def test_a_shard_waiting_for_its_worker_keeps_the_storage(
    catalog: Catalog, storage: Storage
) -> None:
    """Between two shards nobody beats; the lease then is the queue's."""
    planned(catalog, storage, "one", parts=2)
    with syncing.hold_shard(catalog, storage, run_id="one", index=0, lease_seconds=-1):
        pass

    assert syncing.reconcile(catalog) == []


def test_a_removed_storage_ends_its_sync(catalog: Catalog, storage: Storage) -> None:
    planned(catalog, storage, "one")
    with (
        pytest.raises(SyncLost),
        syncing.hold_shard(catalog, storage, run_id="one", index=0) as shard,
    ):
        with catalog.begin() as connection:
            storages.remove(connection, storage.id, force=True)
        BatchWriter(catalog, storage, shard).save(one_task("a"))


def test_a_checkpoint_moves_with_its_batch(catalog: Catalog, storage: Storage) -> None:
    planned(catalog, storage, "one")
    with syncing.hold_shard(catalog, storage, run_id="one", index=0) as shard:
        BatchWriter(catalog, storage, shard).save(one_task("a"))
        with catalog.read() as connection:
            (saved,) = shards.of_run(connection, storage.id, "one")

    assert (saved.checkpoint, saved.counters) == ("a", Counters(created=1))
    assert isinstance(saved, Shard) and saved.state is ShardState.RUNNING


def number_of_tasks(catalog: Catalog) -> int:
    with catalog.read() as connection:
        number: int = connection.scalar(sa.select(sa.func.count()).select_from(schema.tasks))
    return number
