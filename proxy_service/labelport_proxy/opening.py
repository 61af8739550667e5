"""Stores, opened once and kept; each with the URLs it signed and may give out again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

from labelport.errors import ConfigurationError, StoreTimeout
from labelport.model import Storage
from labelport.stores import Store
from labelport.stores._blocking import in_own_thread
from labelport_proxy.caching import Kept
from labelport_proxy.fields import Fields, fields
from labelport_proxy.presenting import guessed_type

log = logging.getLogger(__name__)

#: Opens a storage's store; may block.
Opener = Callable[[Storage], Store]

_MOST_URLS = 10_000  # of one storage
_KEEP_SECONDS = 900.0  # then the connection is looked up again: it may have been changed
_STALE_SECONDS = 900.0  # for so long, a store goes on that cannot be opened again
_FAILED_SECONDS = 5.0  # for so long, what could not be opened is not tried again
_LOST_SECONDS = 60.0  # past its time, an opening is taken for lost, and another begins
_REFUSED_SECONDS = 30.0  # how often a refusal of credentials may cause the store to be opened anew
_LINGER_SECONDS = 300.0  # what is replaced is closed once its streams must have ended


class Place(NamedTuple):
    """What a store depends on: storages of one place share it, whatever else they are set to."""

    scheme: str
    bucket: str
    conn_id: str | None


class Opened:
    """A store, with the URLs it signed."""

    def __init__(self, place: Place, store: Store, clock: Callable[[], float]) -> None:
        self.place = place
        self.store = store
        self.tried_at = clock()  #: when its connection was looked up last, well or not
        self.good_until = self.tried_at + _KEEP_SECONDS
        self._clock = clock
        self._gone_at = float("inf")
        self._urls: Kept[tuple[str, int], tuple[Fields, float]] = Kept(_MOST_URLS, clock)

    def prolong(self) -> bool:
        """It could not be opened again: whether it may go on for the time being."""
        self.tried_at = self._clock()
        self._gone_at = min(self._gone_at, self.tried_at + _STALE_SECONDS)
        self.good_until = min(self._gone_at, self.tried_at + _FAILED_SECONDS)
        return self.tried_at < self.good_until

    async def location(self, key: str, seconds: int) -> tuple[Fields, int]:
        """Where *key* is, in a URL signed for *seconds*; for how many it may be given out again.

        At least half of its life is left: browsers keep the URL they were sent to, for all later
        ranges of a video.
        """
        kept = self._urls.get((key, seconds))
        if kept is None:
            now = self._clock()
            url = await self.store.sign(key, seconds=seconds, content_type=guessed_type(key))
            kept = (fields((b"location", url.encode("ascii"))), now + seconds / 2)
            self._urls.put((key, seconds), kept, seconds / 2)
        return kept[0], int(kept[1] - self._clock())


class _Opening(NamedTuple):
    """A store that is being opened."""

    task: asyncio.Task[Opened]
    deadline: float  #: by the loop's clock
    lost_at: float  #: by the stores' clock


class Stores:
    """The stores of all storages, opened when they are first asked for.

    :param patience_seconds: how long an opening may take before nobody waits for it any more
    :param reopen_seconds: the same, where there is a store to go on with
    """

    def __init__(
        self,
        opener: Opener,
        clock: Callable[[], float] = time.monotonic,
        *,
        patience_seconds: float = 10.0,
        reopen_seconds: float = 1.0,
    ) -> None:
        self._opener = opener
        self._clock = clock
        self._patience_seconds = patience_seconds
        self._reopen_seconds = reopen_seconds
        self._opened: dict[tuple[str, str, str | None], Opened] = {}
        self._opening: dict[Place, _Opening] = {}
        self._failed: Kept[Place, ConfigurationError] = Kept(1_000, clock)
        self._retired: set[Opened] = set()

    def known(self, storage: Storage) -> Opened | None:
        """The storage's store, if it is open."""
        # As `Place` is, which takes longer to make.
        found = self._opened.get((storage.scheme, storage.bucket, storage.conn_id))
        return found if found and self._clock() < found.good_until else None

    async def get(self, storage: Storage) -> Opened:
        """The storage's store; the one there was, where it cannot be opened again just now.

        Raises `ConfigurationError` where it cannot be opened, `StoreTimeout` where that does not
        come to an end.
        """
        if found := self.known(storage):
            return found
        place = _place(storage)
        error = self._failed.get(place)
        if error is not None:
            raise error.with_traceback(None)
        opening = self._opening.get(place)
        if opening is None or self._clock() > opening.lost_at:
            opening = self._begin(place, storage)
        left = opening.deadline - asyncio.get_running_loop().time()
        await asyncio.wait([opening.task], timeout=max(0.0, left))
        if opening.task.done():
            return opening.task.result()
        if old := self.known(storage) or self._prolonged(place):
            return old
        raise StoreTimeout("the store is not opened in time", uri=storage.location)

    def _begin(self, place: Place, storage: Storage) -> _Opening:
        seconds = self._reopen_seconds if place in self._opened else self._patience_seconds
        task = asyncio.create_task(self._open(place, storage))
        deadline = asyncio.get_running_loop().time() + seconds
        opening = _Opening(task, deadline, self._clock() + seconds + _LOST_SECONDS)
        self._opening[place] = opening
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return opening

    async def _open(self, place: Place, storage: Storage) -> Opened:
        before = self._opened.get(place)
        try:
            store = await in_own_thread(partial(self._opener, storage))
        except ConfigurationError as error:
            log.error("storage %s cannot be opened: %s", storage.name, error)
            if old := self._prolonged(place):
                return old
            self._failed.put(place, error, _FAILED_SECONDS)
            raise
        finally:
            opening = self._opening.get(place)
            if opening and opening.task is asyncio.current_task():
                del self._opening[place]
        opened = Opened(place, store, self._clock)
        now = self._opened.get(place)
        if now is not None and now is not before:  # one of us was taken for lost
            self._retire(opened)
            return now
        self._retire(now)
        self._opened[place] = opened
        return opened

    def _prolonged(self, place: Place) -> Opened | None:
        """The store there was, if it may go on; else it is done with."""
        old = self._opened.get(place)
        if old is None:
            return None
        if old.prolong():
            log.warning("%s://%s goes on with the store that was open", place.scheme, place.bucket)
            return old
        self._retire(self._opened.pop(place))
        return None

    async def warm_up(self, storages: Iterable[Storage]) -> None:
        """Open one store of each scheme, for the libraries that this loads take seconds.

        What cannot be opened is in the log, and a request will tell.
        """
        for storage in {storage.scheme: storage for storage in storages}.values():
            await asyncio.wait([self._begin(_place(storage), storage).task])

    def refused(self, opened: Opened) -> None:
        """Its credentials were refused: look the connection up again, if that was not just done."""
        if self._clock() - opened.tried_at > _REFUSED_SECONDS:
            opened.good_until = self._clock()

    def _retire(self, opened: Opened | None) -> None:
        if opened is not None and opened not in self._retired:
            self._retired.add(opened)
            asyncio.get_running_loop().call_later(_LINGER_SECONDS, partial(self._end, opened))

    def _end(self, opened: Opened) -> None:
        if opened in self._retired:
            self._retired.discard(opened)
            closing = asyncio.ensure_future(opened.store.close())
            closing.add_done_callback(lambda done: done.exception())

    async def close(self) -> None:
        """Close all of them."""
        for opened in [*self._opened.values(), *self._retired]:
            await opened.store.close()
        self._opened.clear()
        self._retired.clear()


def _place(storage: Storage) -> Place:
    return Place(storage.scheme, storage.bucket, storage.conn_id)
