"""What the operators share: a storage in a catalog."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow.sdk import BaseOperator

from labelport.connections import DEFAULT_CATALOG_CONN_ID


class StorageOperator(BaseOperator):
    """An operator on one storage.

    :param storage: name of the storage in the catalog. (templated)
    :param catalog_conn_id: connection of the catalog, of type ``labelport``. (templated)
    """

    template_fields: Sequence[str] = ("storage", "catalog_conn_id")
    ui_color = "#e8f4f0"

    def __init__(
        self, *, storage: str, catalog_conn_id: str = DEFAULT_CATALOG_CONN_ID, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.storage = storage
        self.catalog_conn_id = catalog_conn_id
