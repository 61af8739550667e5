"""The export: once by hand, then by itself within seconds of every change."""

from __future__ import annotations

from collections.abc import Callable

from demo import annotating, bucket, catalog, following, screen
from demo.rest import Airflow
from demo.weed import S3Server
from labelport.catalog import Catalog
from labelport.model import Storage

DAG_ID = "export_storage"
ON_CHANGE_DAG_ID = "export_on_change"


def export_all(opened: Catalog, airflow: Airflow, server: S3Server, exports: Storage) -> None:
    """Export, change, delete, and show the ledger. Raises RuntimeError when something fails."""
    following.run(opened, airflow, DAG_ID, [exports], shards=1)
    _check(opened, server, exports)
    _watch(airflow)
    first, second, third = (row.annotation_id for row in catalog.ledger_rows(opened, exports)[:3])
    _change(
        opened,
        exports,
        f"annotations {first} and {second} are changed",
        lambda: annotating.change(opened, [first, second]),
    )
    _change(
        opened,
        exports,
        f"annotation {third} is deleted",
        lambda: annotating.take_back(opened, third),
    )
    screen.say(f"the ledger of {exports.name}:")
    screen.show_ledger(catalog.ledger_rows(opened, exports), catalog.ledger_counts(opened, exports))
    _check(opened, server, exports)


def _watch(airflow: Airflow) -> None:
    """Start the automatic export, and wait until its watcher has told of what was made so far.

    Airflow gives the watcher to the triggerer when it next parses the dag.
    """
    airflow.unpause(ON_CHANGE_DAG_ID)
    seconds = following.wait_until(
        lambda: "success" in airflow.asset_runs(ON_CHANGE_DAG_ID), "the first automatic export"
    )
    screen.say(f"dag {ON_CHANGE_DAG_ID} watches for changes, {seconds:.0f} s after it was let")


def _change(opened: Catalog, exports: Storage, what: str, change: Callable[[], None]) -> None:
    """Change annotations, and wait until the export that this causes has ended."""
    change()
    screen.say(f"{what}: dag {ON_CHANGE_DAG_ID} is to notice …")
    seconds = following.wait_until(
        lambda: catalog.up_to_date(opened, exports), "the automatic export"
    )
    screen.console.print(f"    … and did: exported {seconds:.0f} s later")


def _check(opened: Catalog, server: S3Server, exports: Storage) -> None:
    """See with another client that the bucket holds what the ledger says."""
    promised = {row.key for row in catalog.ledger_rows(opened, exports) if row.object_exists}
    found = bucket.exported(server)
    if promised != set(found):
        raise RuntimeError(
            f"the ledger and {exports.location} differ in {sorted(promised ^ set(found))}"
        )
    screen.say(f"boto3 finds the same {len(found)} objects in {exports.location}")
