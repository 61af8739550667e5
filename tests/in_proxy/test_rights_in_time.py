"""A right that was taken away lasts as long as the setting says, however slow the catalog is."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from labelport.catalog import Catalog, users
from labelport_proxy.catalog_threads import CatalogThreads
from labelport_proxy.directory import Directory, Grant, Request
from labelport_proxy.refusing import Refusal
from proxies import project, somebody, storage, task

URI = "s3://media/a.jpg"
SECONDS = 5.0
#: That each statement takes, by the directory's clock.
STATEMENT_SECONDS = 4.0


class Clock:
    """Time that passes while the catalog answers, and not otherwise."""

    def __init__(self, catalog: Catalog) -> None:
        self.now = 100.0
        self.stands = False
        sa.event.listen(catalog.engine, "after_cursor_execute", self._pass)

    def __call__(self) -> float:
        return self.now

    def _pass(self, *_: object) -> None:
        self.now += 0 if self.stands else STATEMENT_SECONDS


@pytest.fixture
def catalog(sqlite_template: Path, tmp_path: Path) -> Iterator[Catalog]:
    path = shutil.copy(sqlite_template, tmp_path / "catalog.db")
    with Catalog(f"sqlite:///{path}") as opened:
        yield opened


def test_what_the_catalog_said_is_as_old_as_the_question(catalog: Catalog) -> None:
    cats = project(catalog, "Cats")
    storage(catalog, cats, "media", "s3://media/")
    number = task(catalog, cats, {"image": URI})
    member = somebody(catalog, "member@example.org", cats)
    request = Request(member.id, "tasks", number, URI)

    async def story() -> None:
        clock = Clock(catalog)
        directory = Directory(catalog, threads, SECONDS, clock)
        assert isinstance(await directory.grant(request), Grant)
        clock.stands = True
        with catalog.begin() as connection:
            users.leave(connection, member.id, cats)

        with pytest.raises(Refusal, match="no such task"):
            _ = directory.known(request) or await directory.grant(request)

    with closing(CatalogThreads(1, seconds=5)) as threads:
        asyncio.run(story())
