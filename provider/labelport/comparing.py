"""What a page of a listing means to the catalog: new, known, changed, missing or come back."""

from __future__ import annotations

from typing import NamedTuple

from labelport.catalog import Catalog, objects
from labelport.catalog.batches import Batch, Target
from labelport.catalog.objects import Brief, KnownObject
from labelport.listing import Listed, covered
from labelport.model import Counters, KeyRange, ObjectMeta, ObjectState, Shard, Storage


class Found(NamedTuple):
    """A unit of a listing, compared: what to import, and a batch with all else there is to save."""

    new: list[ObjectMeta]
    again: list[tuple[Target, KnownObject | None]]  #: and where reading goes on, if not at 0
    batch: Batch


class Comparison:
    """Compares one shard's listing with the catalog, unit by unit, then what was not listed.

    While the listing ascends, one range query tells everything about a unit, also what has gone
    from the bucket. A listing that falls out of order is compared key by key from there on, and
    what has gone is found by a sweep at the end; the shard's checkpoint then stays where it was.
    """

    def __init__(
        self, catalog: Catalog, storage: Storage, shard: Shard, *, reimport_changed: bool
    ) -> None:
        self._catalog = catalog
        self._storage = storage
        self._shard = shard
        self._reimport_changed = reimport_changed
        self._range = covered(storage, shard.keys)
        self._cursor = max(self._range.after, shard.checkpoint)
        self._unordered: _Unordered | None = None

    def compare(self, unit: Listed) -> Found:
        """What *unit* holds to import. Units come in the order they were listed."""
        known = self._known(unit)
        found = Found([], [], Batch(problems=list(unit.problems)))
        counters = Counters(scanned=unit.scanned, skipped=len(unit.skipped))
        for key in unit.skipped:
            known.pop(key, None)
        counters += self._sort_objects(unit, known, found)
        if self._unordered is None:
            gone = [(number, key) for number, key, *_ in known.values() if self._in_sight(key)]
            found.batch.missing = [number for number, _ in gone]
            counters += Counters(missing=len(gone))
            found.batch.checkpoint = self._cursor = unit.last
        found.batch.counters = counters
        return found

    def rest(self) -> Batch:
        """After the last unit: what the catalog knows beyond it, or has not seen again."""
        keys = KeyRange(self._cursor, self._range.until)
        gone, marked = 0, []
        with self._catalog.read() as connection:
            for item in objects.existing(connection, self._storage.id, keys):
                if self._in_sight(item.key) and not self._was_seen(item.id):
                    gone += 1
                    if item.object_exists:
                        marked.append(item.id)
        return Batch(missing=marked, counters=Counters(missing=gone))

    def _known(self, unit: Listed) -> dict[str, Brief]:
        """The catalog's objects among *unit*'s keys and, while in order, in the gaps between."""
        with self._catalog.read() as connection:
            if unit.in_order and self._unordered is None:
                return objects.in_range(
                    connection, self._storage.id, KeyRange(self._cursor, unit.last)
                )
            if self._unordered is None:
                self._unordered = _Unordered(objects.newest(connection, self._storage.id))
            keys = [*(meta.key for meta in unit.objects), *unit.skipped]
            known = objects.briefly(connection, self._storage.id, keys)
        self._unordered.seen.update(item[0] for item in known.values())
        return known

    def _sort_objects(self, unit: Listed, known: dict[str, Brief], found: Found) -> Counters:
        existed = 0
        restless: list[ObjectMeta] = []
        for meta in unit.objects:
            item = known.pop(meta.key, None)
            if item is None:
                found.new.append(meta)
                continue
            _, _, etag, size, settled = item
            if settled and etag == meta.etag and size == meta.size:
                existed += 1
            else:
                restless.append(meta)
        return Counters(existed=existed) + self._sort_restless(restless, found)

    def _sort_restless(self, restless: list[ObjectMeta], found: Found) -> Counters:
        """Known objects that changed, came back, or were not imported whole."""
        if not restless:
            return Counters()
        existed = changed = 0
        with self._catalog.read() as connection:
            keys = [meta.key for meta in restless]
            known = objects.by_key(connection, self._storage.id, keys)
        judged = self._judged(known)
        for meta in restless:
            item = known[meta.key]
            differs = item.etag != meta.etag or item.size != meta.size
            changed += differs
            if not item.object_exists:
                found.batch.returned.append(item.id)
            target = self._again(meta, item, differs=differs, judged=item.key in judged)
            if target is None:
                existed += not differs
            else:
                found.again.append((target, _resume(item, target, item.key in judged)))
        return Counters(existed=existed, changed=changed)

    def _again(
        self, meta: ObjectMeta, item: KnownObject, *, differs: bool, judged: bool
    ) -> Target | None:
        """A known object that has to be read again, wholly or from where it was left."""
        finished = item.state != ObjectState.PARTIAL
        if differs:
            wanted = self._reimport_changed or item.state != ObjectState.DONE
        else:
            wanted = not finished or (item.state == ObjectState.ERROR and not judged)
        if not wanted:
            return None
        return Target(meta, item.id, revisited=True, refresh=differs)

    def _judged(self, known: dict[str, KnownObject]) -> set[str]:
        """Which objects this very run has written error rows for, before its worker restarted."""
        failed = [item.key for item in known.values() if item.rows_failed]
        if not failed:
            return set()
        with self._catalog.read() as connection:
            return objects.judged(connection, self._storage.id, self._shard.run_id, failed)

    def _in_sight(self, key: str) -> bool:
        """Whether the listing would show *key*: without recursion, not what lies in folders."""
        return self._storage.recursive_scan or "/" not in key[len(self._storage.folder) :]

    def _was_seen(self, object_id: int) -> bool:
        unordered = self._unordered
        return unordered is not None and (
            object_id in unordered.seen or object_id > unordered.newest
        )


class _Unordered:
    """What a listing out of order needs for its sweep: a set of ids, not of keys."""

    def __init__(self, newest: int) -> None:
        self.seen: set[int] = set()
        self.newest = newest  #: ids above it were made since, by this very shard


def _resume(item: KnownObject, target: Target, judged: bool) -> KnownObject | None:
    """Where reading goes on; None: at the object's start.

    Rows before the resume point are not looked at again. If some of them had failed in an earlier
    run, their error rows are gone with it: then everything is read, so that nothing goes unsaid.
    """
    usable = item.state == ObjectState.PARTIAL and not target.refresh
    if not usable or (item.rows_failed and not judged):
        return None
    return item
