"""The assets by which exports are started, and by which they start others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.sdk import Asset, AssetAlias, AssetWatcher

from labelport.connections import DEFAULT_CATALOG_CONN_ID

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context

#: Under this name every export task group tells of the storages it has written to.
EXPORTED = AssetAlias("labelport_exported")


def annotations_asset(
    project: str | None = None, catalog_conn_id: str = DEFAULT_CATALOG_CONN_ID
) -> Asset:
    """What changes, within seconds, whenever annotations do: for a dag's ``schedule``.

    :param project: title of the project to watch; None: all of them.
    :param catalog_conn_id: connection of the catalog, of type ``labelport``.
    """
    from labelport.airflow.triggers import AnnotationEventsTrigger

    trigger = AnnotationEventsTrigger(project=project, catalog_conn_id=catalog_conn_id)
    # Of each place its own asset: those of one name would have each other's watchers.
    catalog = "" if catalog_conn_id == DEFAULT_CATALOG_CONN_ID else catalog_conn_id
    return Asset(
        name=" ".join(filter(None, ("labelport_annotations", project, catalog))),
        uri=f"labelport://annotations/{quote(project or '', safe='')}"
        + (f"?catalog={quote(catalog, safe='')}" if catalog else ""),
        watchers=[AssetWatcher(name="outbox", trigger=trigger)],
    )


def exported_asset(storage: str) -> Asset:
    """What changes whenever an export wrote or deleted objects of *storage*.

    :param storage: name of the storage in the catalog.
    """
    return Asset(
        name=f"labelport_exported {storage}",
        uri=f"labelport://exported/{quote(storage, safe='')}",
    )


def tell_outlets(
    task: BaseOperator, context: Context, storage: str, report: dict[str, Any]
) -> None:
    """Tell the outlets of *task* what an export to *storage* did: its counters, in ``extra``.

    An alias resolves to the storage's own asset, and only if an object was written or deleted.
    """
    wrote = report["created"] or report["updated"] or report["missing"]
    for outlet in task.outlets:
        event = context["outlet_events"][outlet]
        if not isinstance(outlet, AssetAlias):
            event.extra.update(report)
        elif wrote:
            event.add(exported_asset(storage), extra=report)
