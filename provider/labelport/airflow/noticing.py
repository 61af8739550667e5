"""Is there something new? Asked by the sensors and their triggers, answered with numbers only."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from labelport.catalog import Catalog
    from labelport.listing import Listed
    from labelport.model import KeyRange, Storage
    from labelport.stores import Store

#: How many objects one look goes through, unless somebody says otherwise.
LOOK_OBJECTS = 10_000


def new_annotations(catalog: Catalog, storage: Storage) -> dict[str, int] | None:
    """What happened in the storage's project beyond its watermark; None: nothing."""
    from labelport.catalog import events, news

    with catalog.read() as connection:
        seen = events.watermark(connection, storage.id)
        found = news.since(connection, storage.project_id, seen)
    return found and found._asdict()


class Look(NamedTuple):
    """What one look at a listing came to."""

    new: int  #: objects that the catalog does not know; more may follow
    position: str  #: the key after which the next look goes on; empty: from the start


async def new_objects(
    catalog: Catalog,
    store: Store,
    storage: Storage,
    *,
    position: str = "",
    max_objects: int = LOOK_OBJECTS,
) -> Look:
    """Look for objects that no sync of *storage* has met, at about *max_objects* of them.

    First behind the last known key, where dated names arrive; then on from *position*, so that
    several looks go round the whole bucket. A store that lists in no order is listed whole.
    """
    from labelport.catalog import news
    from labelport.model import KeyRange

    def last_key() -> str:
        with catalog.read() as connection:
            return news.last_key(connection, storage.id)

    last = await asyncio.to_thread(last_key)
    found = await _look(catalog, store, storage, KeyRange(last), max_objects)
    if found.new or not last:
        return found
    return await _look(catalog, store, storage, KeyRange(position), max_objects)


async def _look(
    catalog: Catalog, store: Store, storage: Storage, keys: KeyRange, max_objects: int
) -> Look:
    from labelport import listing

    seen = 0
    async with aclosing(listing.listed(store, storage, keys)) as units:
        async for unit in units:
            new = await asyncio.to_thread(_unknown, catalog, storage, unit)
            if new:
                return Look(new, keys.after)
            seen += unit.scanned
            if seen >= max_objects and store.ordered:
                return Look(0, unit.last)
    return Look(0, "")


def _unknown(catalog: Catalog, storage: Storage, unit: Listed) -> int:
    from labelport.catalog import objects

    keys = {found.key for found in unit.objects}
    with catalog.read() as connection:
        return len(keys - objects.briefly(connection, storage.id, keys).keys())
