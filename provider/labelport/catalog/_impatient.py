"""Connections to PostgreSQL that are given up where no answer comes."""

from __future__ import annotations

import time
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen

T = TypeVar("T")


class ImpatientConnection(psycopg.Connection[Any]):
    """A connection that closes itself when a step of its talk takes too long.

    The kernel tells of a peer that is gone. Of one that is there and mute, nothing does.
    """

    answer_seconds = 60.0

    def wait(self, gen: PQGen[T], *args: Any, **kwargs: Any) -> T:
        """Do one step. Raises `psycopg.OperationalError` when it takes too long."""
        return super().wait(self._bounded(gen), *args, **kwargs)

    def _bounded(self, gen: PQGen[T]) -> PQGen[T]:
        deadline = time.monotonic() + self.answer_seconds
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted  # psycopg sends 0 now and then, where nothing has come
                if not ready and time.monotonic() >= deadline:
                    self.pgconn.finish()
                    raise psycopg.OperationalError(
                        f"the server did not answer within {self.answer_seconds:g} s"
                    )
                wanted = gen.send(ready)
        except StopIteration as end:
            result: T = end.value
            return result
