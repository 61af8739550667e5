"""The error rows of a sync: objects and rows that could not be imported."""

from __future__ import annotations

from typing import NamedTuple

import sqlalchemy as sa

from labelport.catalog.schema import import_errors, storages
from labelport.model import Problem


class Problems(NamedTuple):
    """One page of error rows, in the order they were met."""

    problems: list[Problem]
    next: int | None  #: the *after* of the next page; None: this is the last


def page(
    connection: sa.Connection,
    storage_id: int,
    *,
    run_id: str | None = None,
    after: int = 0,
    limit: int = 100,
) -> Problems:
    """Error rows of a storage's latest run, or of *run_id*.

    A sync that begins forgets those of the syncs before it.
    """
    if run_id is None:
        latest = sa.select(storages.c.run_id).where(storages.c.id == storage_id)
        run: sa.ColumnElement[bool] = import_errors.c.run_id == latest.scalar_subquery()
    else:
        run = import_errors.c.run_id == run_id
    columns = import_errors.c
    rows = connection.execute(
        sa.select(
            columns.id,
            columns.key,
            columns.row_index,
            columns.reason,
            columns.remedy,
            columns.row_group,
        )
        .where(columns.storage_id == storage_id, run, columns.id > after)
        .order_by(columns.id)
        .limit(limit + 1)
    ).all()
    found = [Problem(*row[1:]) for row in rows[:limit]]
    return Problems(found, rows[limit - 1].id if len(rows) > limit else None)
