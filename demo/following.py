"""Running a dag for storages, and following their syncs to the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from demo import catalog, screen
from demo.catalog import Followed
from demo.rest import Airflow
from labelport.catalog import Catalog
from labelport.model import Storage

#: Longer than anything in the demonstration takes.
_SECONDS = 300
_LOOK_SECONDS = 0.5


def run(
    opened: Catalog, airflow: Airflow, dag_id: str, storages: Sequence[Storage], **params: object
) -> list[Followed]:
    """Run a dag for each of *storages*, side by side. Raises RuntimeError when one fails."""
    airflow.unpause(dag_id)
    followed = [
        Followed(storage, dag_id, airflow.start(dag_id, storage=storage.name, **params))
        for storage in storages
    ]
    screen.say(f"dag {dag_id} runs for {' and '.join(s.name for s in storages)}")
    with screen.live(followed) as view:

        def ended() -> bool:
            for each in followed:
                each.dag_run = airflow.state(each.dag_id, each.run_id)
            catalog.read(opened, followed)
            if view:
                view.update(screen.table(followed), refresh=True)
            return all(each.ended or each.failed for each in followed)

        wait_until(ended, f"the end of {dag_id}")
    for each in followed:
        if each.failed:
            raise RuntimeError(f"storage {each.storage.name}: {each.state.traceback}")
    return followed


def wait_until(happened: Callable[[], bool], what: str) -> float:
    """Wait until it has happened; how many seconds that took. Raises RuntimeError."""
    begun = time.monotonic()
    while not happened():
        if time.monotonic() - begun > _SECONDS:
            raise RuntimeError(f"{what} did not come within {_SECONDS} s")
        time.sleep(_LOOK_SECONDS)
    return time.monotonic() - begun
