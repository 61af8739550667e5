"""Questions that come while one is being answered are answered together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from sqlalchemy import exc

from labelport_proxy.catalog_threads import CatalogThreads

Q = TypeVar("Q")
A = TypeVar("A")


class Batches(Generic[Q, A]):
    """Asks a function of the catalog, once at a time, for all that wait.

    A look into a database costs a thread's turn and a query, whether for one or for a hundred. One
    that takes too long is not waited for, and may still be going on when the next begins.
    """

    def __init__(
        self,
        answer_all: Callable[[Sequence[Q]], Sequence[A]],
        *,
        most: int,
        threads: CatalogThreads,
    ) -> None:
        self._threads = threads
        self._answer_all = answer_all
        self._most = most
        self._waiting: list[tuple[Q, asyncio.Future[A]]] = []
        self._task: asyncio.Task[None] | None = None

    async def ask(self, question: Q) -> A:
        """The answer to *question*, or what the function raised for its batch.

        Raises `sqlalchemy.exc.TimeoutError` when the catalog does not answer in time.
        """
        future: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, future))
        if self._task is None:
            self._task = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
            try:
                answers = await self._threads.call(self._answer_all, [each for each, _ in batch])
            except Exception as error:
                if isinstance(error, exc.TimeoutError):  # those behind have waited as well
                    batch, self._waiting = batch + self._waiting, []
                # Each of them raises it where it was asked.
                for _, future in batch:
                    if not future.done():  # whoever asked may have left
                        future.set_exception(error)
            else:
                for (_, future), answer in zip(batch, answers, strict=True):
                    if not future.done():
                        future.set_result(answer)
        self._task = None
