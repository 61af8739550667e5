"""What a storage's listing shows: pages in order, folder markers and filtered keys set apart."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from labelport.errors import ConfigurationError
from labelport.model import ALL_KEYS, KeyRange, ObjectMeta, Problem, Storage
from labelport.stores import Store

#: Sorts after every character a key can hold.
_LAST = "\U0010ffff"


@dataclass(frozen=True)
class Listed:
    """One or several pages of a listing, as one unit of work."""

    objects: Sequence[ObjectMeta]  #: what the storage covers
    skipped: Sequence[str]  #: keys of folder markers and of what the filter leaves out
    problems: Sequence[Problem]  #: keys that no catalog can hold
    in_order: bool  #: keys ascend, and all come after the pages before
    last: str  #: the greatest key up to here

    @property
    def scanned(self) -> int:
        return len(self.objects) + len(self.skipped) + len(self.problems)


def covered(storage: Storage, keys: KeyRange = ALL_KEYS) -> KeyRange:
    """The part of *keys* that lies in the storage's folder."""
    if not storage.folder:
        return keys
    end = storage.folder + _LAST
    return KeyRange(
        max(keys.after, storage.folder), end if keys.until is None else min(keys.until, end)
    )


async def listed(
    store: Store, storage: Storage, keys: KeyRange = ALL_KEYS, *, at_least: int = 1
) -> AsyncGenerator[Listed, None]:
    """List what *storage* covers within *keys*, in units of *at_least* objects but the last.

    Raises:
        ConfigurationError: the storage's filter is no regular expression.
        BucketNotFound, AccessDenied, StoreUnavailable: from the store.
    """
    skips = skip_rule(storage)
    last = keys.after
    gathered: list[ObjectMeta] = []
    async for page in store.pages(storage.folder, keys, recursive=storage.recursive_scan):
        gathered.extend(page.objects)
        if len(gathered) >= at_least:
            unit = _unit(storage, gathered, skips, last)
            last, gathered = unit.last, []
            yield unit
    if gathered:
        yield _unit(storage, gathered, skips, last)


def skip_rule(storage: Storage) -> Callable[[ObjectMeta], bool]:
    """Whether an object is a folder marker, or one that the storage's filter leaves out."""
    pattern = storage.pattern
    if pattern is None:
        return lambda meta: meta.key.endswith("/") and not meta.size
    match = pattern.match
    return lambda meta: (meta.key.endswith("/") and not meta.size) or not match(meta.key)


def _unit(
    storage: Storage,
    found: Sequence[ObjectMeta],
    skips: Callable[[ObjectMeta], bool],
    last: str,
) -> Listed:
    keys = [meta.key for meta in found]
    ascending = sorted(keys)
    problems = _unstorable(ascending)
    bad = {problem.key for problem in problems}
    objects, skipped = [], []
    for meta in found:
        if meta.key in bad:
            continue
        if skips(meta):
            skipped.append(meta.key)
        else:
            objects.append(meta)
    in_order = keys == ascending and keys[0] > last
    return Listed(objects, skipped, problems, in_order, max(last, ascending[-1]))


def _unstorable(keys: Sequence[str]) -> list[Problem]:
    """A problem for every key that is no text a database takes; none, at the cost of one look."""
    together = "".join(keys)
    if "\0" not in together and together.isprintable():
        return []
    problems = []
    for key in keys:
        if "\0" in key or any("\ud800" <= character <= "\udfff" for character in key):
            problems.append(
                Problem(key, None, "the key is not valid UTF-8 text", "Rename the object.")
            )
    return problems


async def split(
    store: Store, storage: Storage, shards: int, known: Sequence[str]
) -> list[KeyRange]:
    """Cut the storage's keys into at most *shards* ranges of about equal size.

    By quantiles of the keys *known* from earlier syncs; else by the folders or first characters
    that few requests show. A store whose listings are in no order is not cut at all, for a range
    of it could not be listed completely.
    """
    if shards < 1:
        raise ConfigurationError("a sync needs at least one shard")
    if shards == 1:
        return [KeyRange()]
    pages = store.pages(storage.folder, covered(storage), recursive=storage.recursive_scan)
    first = await anext(pages, None)
    await _close(pages)
    if first is None or not store.ordered or not first.objects:
        return [KeyRange()]
    inside = [key for key in known if key in covered(storage)]
    marks = inside if len(inside) >= 4 * shards else await _probe(store, storage, shards)
    return _ranges(_quantiles(marks, shards))


async def _probe(store: Store, storage: Storage, shards: int) -> list[str]:
    """Keys spread over the storage: the first one of every next character, level by level.

    One request of one key per distinct character; it stops at the first level that has enough.
    """
    level = [storage.folder]
    for _ in range(_PROBED_LEVELS):
        found = [mark for stem in level async for mark in _branches(store, storage, stem)]
        if len(found) >= 4 * shards or len(found) >= _PROBED_BRANCHES:
            return found
        if not found:
            return level
        level = found
    return level


#: A prefix that all keys share costs one request a character; beyond this it is one shard.
_PROBED_LEVELS = 64
_PROBED_BRANCHES = 128


async def _branches(store: Store, storage: Storage, stem: str) -> AsyncIterator[str]:
    after = stem
    while (key := await _first(store, storage, stem, after)) is not None:
        branch = key[: len(stem) + 1]
        yield branch
        after = branch + _LAST


async def _first(store: Store, storage: Storage, stem: str, after: str) -> str | None:
    pages = store.pages(stem, KeyRange(after), recursive=storage.recursive_scan, page_size=1)
    try:
        async for page in pages:
            if page.objects:
                return page.objects[0].key
        return None
    finally:
        await _close(pages)


async def _close(pages: AsyncIterator[object]) -> None:
    close = getattr(pages, "aclose", None)
    if close is not None:
        await close()


def _quantiles(marks: Sequence[str], shards: int) -> list[str]:
    cuts = [marks[len(marks) * number // shards] for number in range(1, shards)]
    return sorted({cut for cut in cuts if cut})


def _ranges(cuts: Sequence[str]) -> list[KeyRange]:
    return [KeyRange(after, until) for after, until in zip(["", *cuts], [*cuts, None], strict=True)]
