"""A whole import, or a whole export, in one line of a dag."""

from __future__ import annotations

from typing import Any

from airflow.sdk import Asset, TaskGroup

from labelport.airflow.assets import EXPORTED
from labelport.airflow.operators import (
    DEFAULT_SHARDS,
    ExportShardOperator,
    FinishExportOperator,
    FinishSyncOperator,
    ImportShardOperator,
    PlanExportOperator,
    PlanImportOperator,
    ValidateStorageOperator,
)
from labelport.connections import DEFAULT_CATALOG_CONN_ID


class ImportStorageTaskGroup(TaskGroup):
    """Import a storage: ``validate``, ``plan``, a mapped ``shard`` for each key range, ``finish``.

    ``ImportStorageTaskGroup(group_id="import", storage="photos")`` is enough. Several groups may
    stand in one dag, each with a storage of its own.

    :param storage: name of the storage in the catalog. (templated)
    :param group_id: id of the group.
    :param shards: how many key ranges to aim at; a small bucket gets fewer. (templated)
    :param reimport_changed: import objects again whose bytes changed since. (templated)
    :param max_errors: end the sync as failed beyond this many bad objects and rows; empty or
        None: never. (templated)
    :param fail_on_errors: fail the dag run when the sync ends ``completed_with_errors``.
        (templated)
    :param catalog_conn_id: connection of the catalog, of type ``labelport``. (templated)
    :param validate: check first that the storage can be listed and read. Without, a folder that
        was emptied is no error: its objects are counted as missing.
    :param max_active_shards: how many shards of one dag run may work at once; None: as many as
        Airflow lets. Arguments for every task (``retries``, ``pool``, …) go into
        ``default_args``.
    """

    def __init__(
        self,
        *,
        storage: str,
        group_id: str = "import",
        shards: int | str = DEFAULT_SHARDS,
        reimport_changed: bool | str = False,
        max_errors: int | str | None = None,
        fail_on_errors: bool | str = False,
        catalog_conn_id: str = DEFAULT_CATALOG_CONN_ID,
        validate: bool = True,
        max_active_shards: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(group_id=group_id, **kwargs)
        place = {"storage": storage, "catalog_conn_id": catalog_conn_id}
        with self:
            plan = PlanImportOperator(task_id="plan", shards=shards, **place)
            shard = ImportShardOperator.partial(
                task_id="shard",
                reimport_changed=reimport_changed,
                max_errors=max_errors,
                max_active_tis_per_dagrun=max_active_shards,
                map_index_template="{{ task.shard['label'] }}",
                **place,
            ).expand(shard=plan.output)
            if validate:
                (
                    ValidateStorageOperator(
                        task_id="validate",
                        claim=True,
                        storage=storage,
                        catalog_conn_id=catalog_conn_id,
                    )
                    >> plan
                )
            shard >> FinishSyncOperator(task_id="finish", fail_on_errors=fail_on_errors, **place)


class ExportStorageTaskGroup(TaskGroup):
    """Export to a storage: ``validate``, ``plan``, a mapped ``shard`` a range of ids, ``finish``.

    ``ExportStorageTaskGroup(group_id="export", storage="annotations")`` is enough. What fails is
    in the ledger with its error, fails the dag run, and is tried again by the next one.

    :param storage: name of an export storage in the catalog. (templated)
    :param group_id: id of the group.
    :param select: which annotations to write: ``all``, ``new`` (never exported, or failed), or
        ``changed`` (those, and those whose bytes would differ). (templated)
    :param shards: how many ranges of annotation ids to aim at. (templated)
    :param max_errors: end the sync as failed beyond this many failed annotations; empty or None:
        never. (templated)
    :param fail_on_errors: fail the dag run when the sync ends ``completed_with_errors``.
        (templated)
    :param outlet: an asset of your own that ``finish`` updates, with the counters in ``extra``.
        None: `labelport.airflow.assets.exported_asset` of the storage, when objects were written
        or deleted.
    :param catalog_conn_id: connection of the catalog, of type ``labelport``. (templated)
    :param validate: check first that the bucket answers.
    :param probe: check as well, by a small object, that it can be written to and deleted from.
    :param max_active_shards: how many shards of one dag run may work at once; None: as many as
        Airflow lets. Arguments for every task (``retries``, ``pool``, …) go into
        ``default_args``.
    """

    def __init__(
        self,
        *,
        storage: str,
        group_id: str = "export",
        select: str = "changed",
        shards: int | str = DEFAULT_SHARDS,
        max_errors: int | str | None = None,
        fail_on_errors: bool | str = True,
        outlet: Asset | None = None,
        catalog_conn_id: str = DEFAULT_CATALOG_CONN_ID,
        validate: bool = True,
        probe: bool = False,
        max_active_shards: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(group_id=group_id, **kwargs)
        place = {"storage": storage, "catalog_conn_id": catalog_conn_id}
        with self:
            plan = PlanExportOperator(task_id="plan", shards=shards, **place)
            shard = ExportShardOperator.partial(
                task_id="shard",
                select=select,
                max_errors=max_errors,
                max_active_tis_per_dagrun=max_active_shards,
                map_index_template="{{ task.shard['label'] }}",
                **place,
            ).expand(shard=plan.output)
            if validate:
                check = ValidateStorageOperator(
                    task_id="validate",
                    claim=True,
                    probe=probe,
                    storage=storage,
                    catalog_conn_id=catalog_conn_id,
                )
                check >> plan
            shard >> FinishExportOperator(
                task_id="finish",
                select=select,
                fail_on_errors=fail_on_errors,
                outlets=[EXPORTED if outlet is None else outlet],
                **place,
            )
