"""A store whose listing is made up as it goes, so that only the engine's memory is measured."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from labelport.model import ALL_KEYS, KeyRange, ObjectMeta, Page
from labelport.stores.memory import MemoryStore

_WHEN = datetime(2026, 1, 1, tzinfo=UTC)


class GeneratedStore(MemoryStore):
    """Lists *count* keys ``img/00000000.jpg`` … in pages of 1,000, as S3 does."""

    def __init__(self, count: int) -> None:
        super().__init__("generated")
        self._count = count

    async def pages(
        self, prefix: str = "", keys: KeyRange = ALL_KEYS, **options: Any
    ) -> AsyncIterator[Page]:
        metas = (
            ObjectMeta(f"img/{number:08}.jpg", 1_000, f"etag{number}", _WHEN)
            for number in range(self._count)
        )
        inside = (meta for meta in metas if meta.key in keys)
        while page := list(islice(inside, 1_000)):
            yield Page(page)
