"""Running the engine inside a task: what it works on, its end by a signal, its progress."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

from labelport.errors import (
    AccessDenied,
    BucketNotFound,
    ConfigurationError,
    SyncLost,
    SyncRefused,
    TooManyErrors,
)

if TYPE_CHECKING:
    from airflow.sdk.types import RuntimeTaskInstanceProtocol

    from labelport.catalog import Catalog
    from labelport.model import Counters, Storage
    from labelport.progress import OnProgress, Progress
    from labelport.stores import Store

log = logging.getLogger(__name__)

Result = TypeVar("Result")

#: What no retry puts right: a person must, or another run is at it.
_FINAL = (
    AccessDenied,
    BucketNotFound,
    ConfigurationError,
    SyncLost,
    SyncRefused,
    TooManyErrors,
)

#: The counters that an import's ``progress`` shows beside the rate: tasks made and objects passed
#: over, per second.
_REPORTED = ("scanned", "created", "existed", "errors")


@contextmanager
def opened(storage: str, catalog_conn_id: str) -> Iterator[tuple[Catalog, Storage]]:
    """The catalog, open, and the storage called *storage* in it.

    Errors that no retry can put right leave as Airflow's fail-at-once.
    """
    from airflow.sdk.exceptions import AirflowFailException

    from labelport.catalog import storages
    from labelport.connections import open_catalog

    try:
        with open_catalog(catalog_conn_id) as catalog:
            with catalog.read() as connection:
                found = storages.get(connection, storage)
            yield catalog, found
    except _FINAL as exc:
        raise AirflowFailException(str(exc)) from exc


@asynccontextmanager
async def opened_store(storage: Storage) -> AsyncIterator[Store]:
    """The store of *storage*, open."""
    from labelport.connections import open_store

    store = open_store(storage)
    try:
        yield store
    finally:
        await store.close()


@contextmanager
def claimed(catalog: Catalog, storage: Storage, job: str) -> Iterator[None]:
    """Claim *storage* for a run; if the block raises, the run has failed with that."""
    from labelport import syncing

    syncing.queue(catalog, storage, run_id=job, job=job)
    try:
        yield
    except BaseException as exc:  # the claim must not outlive the task that made it
        syncing.fail(catalog, storage, run_id=job, error=exc)
        raise


class Work:
    """One coroutine in a loop of its own, which a signal handler may cancel."""

    def __init__(self) -> None:
        self._task: asyncio.Task[Any] | None = None

    def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """The coroutine's result. Raises `asyncio.CancelledError` once `cancel` was called."""
        return asyncio.run(self._hold(coroutine))

    async def _hold(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        self._task = asyncio.current_task()
        try:
            return await coroutine
        finally:
            self._task = None

    def cancel(self) -> None:
        """Stop the coroutine at its next step; what it has committed stays. Harmless if idle."""
        if self._task is not None:
            self._task.get_loop().call_soon_threadsafe(self._task.cancel)


def report_to(ti: RuntimeTaskInstanceProtocol, names: Sequence[str] = _REPORTED) -> OnProgress:
    """Where a shard tells how far it is: XCom ``progress``, for viewers.

    Airflow refusing it is no reason to stop the sync.
    """
    from airflow.sdk.exceptions import AirflowRuntimeError

    def push(progress: Progress) -> None:
        report = {name: getattr(progress.counters, name) for name in names}
        try:
            ti.xcom_push(key="progress", value=report | {"rate": round(progress.rate, 1)})
        except AirflowRuntimeError as exc:
            log.warning("progress could not be told: %s", exc)

    return push


def summary(counters: Counters) -> dict[str, int]:
    """A shard's or a run's counters, as a task returns them: numbers only, never keys."""
    return asdict(counters)
