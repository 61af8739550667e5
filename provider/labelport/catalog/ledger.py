"""The ledger of exports, for reading: which annotation went where, and what did not."""

from __future__ import annotations

from typing import NamedTuple

import sqlalchemy as sa

from labelport.catalog.schema import export_links
from labelport.model import ExportLink

_COLUMNS = [export_links.c[name] for name in ExportLink.__struct_fields__]


class LedgerCounts(NamedTuple):
    """How many annotations stand how in one export storage; each is counted once."""

    exported: int  #: the store holds what was written last
    failed: int  #: the latest attempt, to write or to delete, ended in an error
    deleted: int  #: tombstones: the annotation is gone, its object may remain


def page(
    connection: sa.Connection,
    storage_id: int,
    *,
    failed: bool | None = None,
    after: int = 0,
    limit: int = 100,
) -> list[ExportLink]:
    """Up to *limit* rows of annotations above *after*, in order of the annotations' ids.

    The annotation id of the last one is the *after* of the next page; a short page is the last.

    :param failed: only rows whose latest attempt failed, or only those where it did not
    """
    query = sa.select(*_COLUMNS).where(
        export_links.c.storage_id == storage_id, export_links.c.annotation_id > after
    )
    if failed is not None:
        query = query.where(_FAILED if failed else ~_FAILED)
    rows = connection.execute(query.order_by(export_links.c.annotation_id).limit(limit))
    return [ExportLink(**row) for row in rows.mappings()]


def counts(connection: sa.Connection, storage_id: int) -> LedgerCounts:
    """How the ledger of a storage stands; it reads every row of it."""
    deleted = export_links.c.deleted_at.is_not(None)
    row = connection.execute(
        sa.select(
            _number(export_links.c.object_exists & ~deleted & ~_FAILED),
            _number(_FAILED),
            _number(deleted & ~_FAILED),
        ).where(export_links.c.storage_id == storage_id)
    ).one()
    return LedgerCounts(*row)


_FAILED = export_links.c.error.is_not(None)


def _number(which: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
    return sa.func.count(sa.case((which, 1)))
