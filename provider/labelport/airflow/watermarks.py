"""How far an export storage is with its project's outbox."""

from __future__ import annotations

from labelport.airflow.running import opened


def newest_event(storage: str, catalog_conn_id: str) -> int:
    """The latest event of the storage's project: an export that begins now covers it."""
    from labelport.catalog import events

    with opened(storage, catalog_conn_id) as (catalog, found), catalog.read() as connection:
        return events.newest(connection, found.project_id)


def move_watermark(storage: str, catalog_conn_id: str, event_id: int) -> None:
    """Note that the storage is done with every event up to *event_id*; never backward."""
    from labelport.exporting import done_with_events

    with opened(storage, catalog_conn_id) as (catalog, found):
        done_with_events(catalog, found, event_id)
