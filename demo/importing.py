"""The import: both storages at once, and what is broken in them."""

from __future__ import annotations

from collections.abc import Sequence

from demo import catalog, following, screen
from demo.rest import Airflow
from labelport.catalog import Catalog
from labelport.model import Status, Storage

DAG_ID = "import_storage"


def import_all(opened: Catalog, airflow: Airflow, storages: Sequence[Storage]) -> None:
    """Import *storages* side by side. Raises RuntimeError when one fails."""
    for each in following.run(opened, airflow, DAG_ID, storages):
        if each.state.status is Status.COMPLETED_WITH_ERRORS:
            screen.say(f"{each.storage.name}: all was imported, but for what is broken:")
            screen.show_problems(catalog.error_rows(opened, each.storage))
