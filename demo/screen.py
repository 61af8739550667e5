"""What a person sees of the demonstration."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from demo import catalog
from demo.catalog import Followed
from demo.weed import S3Server
from labelport.catalog.ledger import LedgerCounts
from labelport.model import ExportLink, Problem, Status

if TYPE_CHECKING:
    from demo.serving import Visit

console = Console(highlight=False)

_STYLES = {
    Status.COMPLETED: "green",
    Status.COMPLETED_WITH_ERRORS: "yellow",
    Status.FAILED: "red",
}
_COUNTERS = ("scanned", "created", "existed", "errors")
#: Rows of the ledger that are shown.
_ROWS = 12


def say(text: str) -> None:
    """One line about what happens now. *text* may hold rich's markup."""
    console.print(f"[bold cyan]•[/] {text}")


@contextmanager
def live(followed: Sequence[Followed]) -> Iterator[Live | None]:
    """A table that follows the syncs and stays when they have ended; only that in a pipe."""
    if console.is_terminal:
        with Live(table(followed), console=console, transient=True) as view:
            yield view
    else:
        yield None
    console.print(table(followed))


def table(followed: Sequence[Followed]) -> Table:
    """The storages and where their syncs stand."""
    view = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    view.add_column("storage")
    view.add_column("status", min_width=len(Status.COMPLETED_WITH_ERRORS))
    for name in (*_COUNTERS, "seconds"):
        view.add_column(name, justify="right")
    for each in followed:
        status = each.state.status
        view.add_row(
            each.storage.name,
            f"[{_STYLES.get(status, 'cyan')}]{status}[/]",
            *(f"{getattr(each.state.counters, name):,}" for name in _COUNTERS),
            f"{each.seconds:.1f}",
        )
    return view


def show_problems(problems: Iterable[Problem]) -> None:
    """What could not be imported, why, and what its author can do."""
    for problem in problems:
        row = "" if problem.row is None else f", row {problem.row}"
        console.print(f"  [yellow]{escape(problem.key)}{row}[/]")
        console.print(f"    reason: {escape(problem.reason)}")
        console.print(f"    remedy: {escape(problem.remedy)}")


def show_ledger(rows: Sequence[ExportLink], counts: LedgerCounts) -> None:
    """Which annotation went where, as far as a screen shows it, and how many in all."""
    view = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    view.add_column("annotation", justify="right")
    view.add_column("key", overflow="fold")
    view.add_column("state")
    view.add_column("attempts", justify="right")
    view.add_column("SHA-256")
    for row in rows[:_ROWS]:
        view.add_row(
            str(row.annotation_id),
            escape(row.key),
            "failed" if row.error else "deleted" if row.deleted_at else "exported",
            str(row.attempts),
            (row.digest or "")[:12],
        )
    console.print(view)
    hidden = f"{len(rows) - _ROWS} more; " if len(rows) > _ROWS else ""
    console.print(
        f"  … {hidden}" + ", ".join(f"{n} {name}" for name, n in counts._asdict().items())
    )


def show_data(task_id: int, data: object, resolved: object) -> None:
    """A task's data before and after its URIs lead to the proxy."""
    say(f"task {task_id} refers to its media by URIs, and a labeling program gets URLs:")
    for each in (data, resolved):
        console.print(f"    {json.dumps(each)}", markup=False, soft_wrap=True)


def show_visits(visits: Iterable[Visit]) -> None:
    """Who asked the proxy for what, and what came of it."""
    view = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    view.add_column("who")
    view.add_column("asks for")
    view.add_column("status")
    view.add_column("gets", overflow="fold")
    for each in visits:
        style = "green" if each.status < 400 else "yellow"
        view.add_row(each.who, each.what, f"[{style}]{each.status}[/]", escape(each.came))
    console.print(view)


def show_failure(message: str, details: Iterable[str] = ()) -> None:
    """What went wrong, and what the logs say of it."""
    for detail in details:
        console.print(detail, markup=False, soft_wrap=True)
    console.print(f"[red]The demonstration failed:[/] {escape(message)}", soft_wrap=True)


def show_places(url: str, proxy: str, server: S3Server, home: Path) -> None:
    """Where everything is while it runs."""
    view = Table.grid(padding=(0, 2))
    view.add_row("Airflow", f"{url}  (everybody on this machine is admin)")
    view.add_row("storage proxy", proxy)
    view.add_row("S3", server.endpoint)
    view.add_row("  access key", server.access_key_id)
    view.add_row("  secret key", server.secret_access_key)
    view.add_row("catalog", catalog.url(home))
    view.add_row("logs", str(home))
    console.print(view)


def show_link(link: str) -> None:
    """How to see a picture."""
    say("open this in a browser: a picture, for whoever holds the link, until tomorrow")
    console.print(link, markup=False, soft_wrap=True)


def show_next(home: Path) -> None:
    """What to try when all has stopped: the catalog is still there."""
    say("look into the catalog that is left:")
    console.print(f"  export LABELPORT_CATALOG_URL={catalog.url(home)}", soft_wrap=True)
    console.print("  .venv/bin/labelport storages list")
    console.print("  .venv/bin/labelport errors task-files")
    console.print("  .venv/bin/labelport tasks list")
    console.print("  .venv/bin/labelport tasks show 1 --proxy-url http://127.0.0.1:8090")
    console.print("  .venv/bin/labelport ledger exports")
