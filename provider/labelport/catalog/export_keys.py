"""Which annotation has which key in an export storage, so that no two ever share one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import NamedTuple

import sqlalchemy as sa

from labelport.catalog.schema import export_links
from labelport.model import ExportFormat, ExportUnit, Storage


class Collision(NamedTuple):
    """A key that two units would share."""

    key: str
    first: int  #: annotation id
    second: int


def plan_keys(
    connection: sa.Connection, storage: Storage, units: Sequence[tuple[ExportUnit, str]]
) -> None:
    """Note the keys of annotations that the ledger does not know yet; nothing is exported."""
    rows = [
        {
            "storage_id": storage.id,
            "annotation_id": annotation.id,
            "task_id": unit.task.id,
            "key": key,
        }
        for unit, key in units
        for annotation in unit.annotations
        if annotation.id not in unit.ledger
    ]
    if rows:
        connection.execute(export_links.insert(), rows)


def collision(connection: sa.Connection, storage: Storage) -> Collision | None:
    """A key that more than one unit has in the ledger, if there is any."""
    columns = export_links.c
    unit = columns.task_id if storage.export_format is ExportFormat.TASK else columns.annotation_id
    row = connection.execute(
        sa.select(
            columns.key, sa.func.min(columns.annotation_id), sa.func.max(columns.annotation_id)
        )
        .where(columns.storage_id == storage.id)
        .group_by(columns.key)
        .having(sa.func.min(unit) != sa.func.max(unit))
        .limit(1)
    ).one_or_none()
    return Collision(*row) if row else None


def owners(
    connection: sa.Connection, storage: Storage, keys: Collection[str]
) -> dict[str, set[int]]:
    """Which annotations have some of *keys* in the ledger."""
    found: dict[str, set[int]] = defaultdict(set)
    rows = connection.execute(
        sa.select(export_links.c.key, export_links.c.annotation_id).where(
            export_links.c.storage_id == storage.id, export_links.c.key.in_(keys)
        )
    )
    for row in rows:
        found[row[0]].add(row[1])
    return found
