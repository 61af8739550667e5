"""Stores, opened once and kept; each with the URLs it signed and may give out again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from labelport.errors import ConfigurationError
from labelport.model import Storage
from labelport.stores import Store
from labelport_proxy.caching import Kept
from labelport_proxy.presenting import guessed_type

log = logging.getLogger(__name__)

#: Opens a storage's store; may block.
Opener = Callable[[Storage], Store]

_MOST_URLS = 10_000  # of one storage
_KEEP_SECONDS = 900.0  # then the connection is looked up again: it may have been changed
_FAILED_SECONDS = 5.0  # for so long, what could not be opened is not tried again
_REFUSED_SECONDS = 30.0  # how often a refusal of credentials may cause the store to be opened anew
_LINGER_SECONDS = 300.0  # what is replaced is closed once its streams must have ended


class SignedUrl(NamedTuple):
    """A URL for browsers."""

    url: str
    max_age: int  #: seconds for which it may be given out again


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
        self.at = clock()
        self._clock = clock
        self._urls: Kept[tuple[str, int], tuple[str, float]] = Kept(_MOST_URLS, clock)

    async def signed(self, key: str, seconds: int) -> SignedUrl:
        """A URL of *key*, signed for *seconds*, with at least half of its life left.

        Browsers keep the URL they were sent to, for all later ranges of a video.
        """
        now = self._clock()
        kept = self._urls.get((key, seconds))
        if kept is None:
            url = await self.store.sign(key, seconds=seconds, content_type=guessed_type(key))
            kept = (url, now + seconds / 2)
            self._urls.put((key, seconds), kept, seconds / 2)
        return SignedUrl(kept[0], int(kept[1] - now))


class Stores:
    """The stores of all storages, opened when they are first asked for."""

    def __init__(self, opener: Opener, clock: Callable[[], float] = time.monotonic) -> None:
        self._opener = opener
        self._clock = clock
        self._opened: dict[Place, Opened] = {}
        self._opening: dict[Place, asyncio.Future[Opened]] = {}
        self._failed: Kept[Place, ConfigurationError] = Kept(1_000, clock)
        self._retired: set[Opened] = set()

    def known(self, storage: Storage) -> Opened | None:
        """The storage's store, if it is open."""
        found = self._opened.get(_place(storage))
        return found if found and self._clock() - found.at < _KEEP_SECONDS else None

    async def get(self, storage: Storage) -> Opened:
        """The storage's store. Raises `ConfigurationError` where it cannot be opened."""
        if found := self.known(storage):
            return found
        place = _place(storage)
        error = self._failed.get(place)
        if error is not None:
            raise error
        opening = self._opening.get(place)
        if opening is None:
            opening = asyncio.ensure_future(self._open(place, storage))
            self._opening[place] = opening
            opening.add_done_callback(lambda _: self._opening.pop(place, None))
        return await asyncio.shield(opening)

    async def _open(self, place: Place, storage: Storage) -> Opened:
        try:
            store = await asyncio.to_thread(self._opener, storage)
        except ConfigurationError as error:
            log.error("storage %s cannot be opened: %s", storage.name, error)
            self._failed.put(place, error.with_traceback(None), _FAILED_SECONDS)
            raise
        opened = Opened(place, store, self._clock)
        self._retire(self._opened.get(place))
        self._opened[place] = opened
        return opened

    async def warm_up(self, storages: Iterable[Storage]) -> None:
        """Open one store of each scheme, for the libraries that this loads take seconds."""
        for storage in {storage.scheme: storage for storage in storages}.values():
            with suppress(ConfigurationError):  # which the log has, and a request will tell
                await self.get(storage)

    def refused(self, opened: Opened) -> None:
        """Its credentials were refused: look the connection up again, if that was not just done."""
        if self._clock() - opened.at > _REFUSED_SECONDS:
            if self._opened.get(opened.place) is opened:
                del self._opened[opened.place]
            self._retire(opened)

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
