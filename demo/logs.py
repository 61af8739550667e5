"""What the logs in the demonstration's folder say of a failure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from demo.processes import tail


def failures(home: Path) -> Iterator[str]:
    """The errors of tasks in a line each, then the end of each server's log."""
    for log in sorted(home.glob("airflow/logs/dag_id=*/**/*.log")):
        for line in log.read_text(errors="replace").splitlines():
            yield from _error(line)
    for log in sorted(home.glob("*.log")):
        yield f"the end of {log}:\n{tail(log, 2000)}"


def _error(line: str) -> Iterator[str]:
    """The error that a line of a task's log tells, if it does."""
    try:
        event = json.loads(line)
    except json.JSONDecodeError:
        return
    if event.get("level") != "error":
        return
    causes = [f"{each['exc_type']}: {each['exc_value']}" for each in event.get("error_detail", ())]
    yield f"{event.get('task_id')}: {'; '.join(causes) or event.get('event')}"
