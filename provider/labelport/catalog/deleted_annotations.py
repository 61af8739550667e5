"""Which annotations of labeling tools were deleted, so that what comes late undoes nothing.

A row for each, of some hundred bytes with its index, for as long as there is its project: never
more than annotations that tools have sent. Those that went with their task have none, for nothing
comes back without its task.
"""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from labelport.catalog import schema
from labelport.catalog.clock import now
from labelport.catalog.schema import deleted_annotations as rows


def remember(
    connection: sa.Connection, which: sa.ColumnElement[bool], *, by_tool: bool = False
) -> None:
    """Note that the annotations *which* holds for are about to be deleted, all at once.

    Under their project's lock (`events.lock`). Those that no tool has sent are left out.

    :param by_tool: their tool deleted them, so that it will say nothing newer of them
    """
    columns = schema.annotations.c
    # A tool's clock may be ahead of ours: what is deleted is never newer than its deletion.
    deleted_at = sa.case((columns.updated_at > now(), columns.updated_at), else_=now())
    doomed = sa.select(
        columns.project_id, columns.source_id, sa.literal(by_tool), deleted_at
    ).where(which, columns.source_id.is_not(None))
    make = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    statement = make(rows).from_select([column.name for column in rows.c], doomed)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["project_id", "source_id"],
            set_={name: statement.excluded[name] for name in ("by_tool", "deleted_at")},
        )
    )


def stays_deleted(
    connection: sa.Connection, project_id: int, source_id: str, updated_at: datetime | None
) -> bool:
    """Whether an annotation was deleted, and what its tool says as of *updated_at* is no news.

    What the tool deleted stays deleted. What was deleted here does too, unless it was changed
    there since, by the time the tool tells.
    """
    this = (rows.c.project_id == project_id) & (rows.c.source_id == source_id)
    query = sa.select(rows.c.by_tool, rows.c.deleted_at).where(this)
    row = connection.execute(query).one_or_none()
    if row is None:
        return False
    return row.by_tool or updated_at is None or updated_at <= row.deleted_at
