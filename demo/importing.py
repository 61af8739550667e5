"""Running the import dag for several storages at once, and following them to their end."""

from __future__ import annotations

import time
from collections.abc import Sequence

from demo import catalog, screen
from demo.catalog import Followed
from demo.rest import Airflow
from demo.standalone import DAG_ID
from labelport.catalog import Catalog
from labelport.model import Status, Storage

#: Longer than any import of the demonstration takes.
_SECONDS = 300
_LOOK_SECONDS = 0.5


def import_all(opened: Catalog, airflow: Airflow, storages: Sequence[Storage]) -> None:
    """Import *storages* side by side. Raises RuntimeError when one fails."""
    airflow.unpause(DAG_ID)
    followed = [
        Followed(storage, airflow.start(DAG_ID, storage=storage.name)) for storage in storages
    ]
    screen.say(f"dag {DAG_ID} runs for {' and '.join(s.name for s in storages)}")
    _follow(opened, airflow, followed)
    for each in followed:
        if each.failed:
            raise RuntimeError(f"storage {each.storage.name}: {each.state.traceback}")
        if each.state.status is Status.COMPLETED_WITH_ERRORS:
            screen.say(f"{each.storage.name}: all was imported, but for what is broken:")
            screen.show_problems(catalog.error_rows(opened, each.storage))


def _follow(opened: Catalog, airflow: Airflow, followed: Sequence[Followed]) -> None:
    deadline = time.monotonic() + _SECONDS
    with screen.live(followed) as view:
        while not all(each.ended or each.failed for each in followed):
            if time.monotonic() > deadline:
                raise RuntimeError(f"the dag runs did not end within {_SECONDS} s")
            time.sleep(_LOOK_SECONDS)
            for each in followed:
                each.dag_run = airflow.state(DAG_ID, each.run_id)
            catalog.read(opened, followed)
            if view:
                view.update(screen.table(followed), refresh=True)
