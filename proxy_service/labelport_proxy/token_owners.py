"""Whose a token is, by the catalog; and the note there that it was used."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sqlalchemy.exc import SQLAlchemyError

from labelport.catalog import Catalog, tokens
from labelport.model import AccessToken, TokenKind, User
from labelport_proxy.batching import Batches
from labelport_proxy.catalog_threads import CatalogThreads

log = logging.getLogger(__name__)

_BATCH = 200  # tokens that are looked up at once


class Shown(NamedTuple):
    """A secret that somebody shows, and what it is shown as."""

    secret: str
    kind: TokenKind


class TokenOwners:
    """Finds the users of tokens, those that are asked for meanwhile together."""

    def __init__(self, catalog: Catalog, reading: CatalogThreads, writing: CatalogThreads) -> None:
        self._catalog = catalog
        self._writing = writing
        self._batches = Batches(self._look_up, most=_BATCH, threads=reading)
        self._used: set[int] = set()  # ids of tokens, to be noted
        self._noting: asyncio.Task[None] | None = None

    async def find(self, secret: str, kind: TokenKind) -> User | None:
        """Whose token of this *kind* has the *secret*; None: nobody's."""
        found = await self._batches.ask(Shown(secret, kind))
        if found is None:
            return None
        user, token = found
        if tokens.untouched(token):
            self._used.add(token.id)
            if self._noting is None:
                self._noting = asyncio.create_task(self._note())
        return user

    def _look_up(self, asked: Sequence[Shown]) -> list[tuple[User, AccessToken] | None]:
        with self._catalog.read() as connection:
            found = {each: tokens.user_of(connection, *each) for each in set(asked)}
        return [found[each] for each in asked]

    async def _note(self) -> None:
        """Note what is used. Nobody waits for it: whoever writes may hold the catalog for long."""
        while self._used:
            used, self._used = self._used, set()
            try:
                await self._writing.call(self._touch, sorted(used))
            except SQLAlchemyError as error:
                log.warning("when tokens were used is not noted: %s", error)
        self._noting = None

    def _touch(self, token_ids: Iterable[int]) -> None:
        with self._catalog.begin() as connection:
            for token_id in token_ids:
                tokens.touch(connection, token_id)
