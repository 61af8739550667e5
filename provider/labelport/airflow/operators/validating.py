"""The check that begins a sync, or stands alone."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from labelport.airflow.jobs import job_of
from labelport.airflow.operators.storage import StorageOperator
from labelport.airflow.running import claimed, opened, opened_store

if TYPE_CHECKING:
    from airflow.sdk import Context

    from labelport.checking import Check
    from labelport.model import Storage


class ValidateStorageOperator(StorageOperator):
    """Check that a storage can do what its syncs will need, before they need it.

    Logs every check with its remedy, returns their names, and fails when one of them failed.

    :param storage: name of the storage in the catalog. (templated)
    :param claim: as the first task of a sync: claim the storage for this dag run, and let a
        failed check be the sync's failure.
    :param probe: for an export storage, also write a small object and delete it again.
    :param catalog_conn_id: connection of the catalog, of type ``labelport``. (templated)
    """

    def __init__(self, *, claim: bool = False, probe: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.claim = claim
        self.probe = probe

    def execute(self, context: Context) -> list[str]:
        job = job_of(context)
        with (
            opened(self.storage, self.catalog_conn_id) as (catalog, storage),
            claimed(catalog, storage, job) if self.claim else nullcontext(),
        ):
            checks = asyncio.run(self._check(storage))
        return [check.name for check in checks]

    async def _check(self, storage: Storage) -> list[Check]:
        from labelport.checking import require, validate

        async with opened_store(storage) as store:
            checks = await validate(store, storage, probe=self.probe)
        for check in checks:
            self.log.info("%s", check)
        require(storage, checks)
        return checks
