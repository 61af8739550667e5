"""``labelport sync``: import what is new in a storage, here and now, with a live picture of it."""

from __future__ import annotations

import argparse
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from labelport.catalog import storages
from labelport.cli.options import Commands, add_command, natural, open_catalog, positive
from labelport.cli.output import complain, print_json, print_table, say
from labelport.cli.shapes import of_storage
from labelport.model import Status, Storage, SyncState

if TYPE_CHECKING:
    from labelport.progress import OnProgress
    from labelport.progress import Progress as ImportProgress


def add_commands(commands: Commands[argparse.ArgumentParser]) -> None:
    parser = add_command(
        commands,
        "sync",
        _sync,
        "Import what is new in a storage. A sync that was stopped goes on where it was.",
    )
    parser.add_argument("storage", help="name or id")
    parser.add_argument(
        "--reimport-changed",
        action="store_true",
        help="read changed objects again and replace the data of their tasks",
    )
    parser.add_argument(
        "--max-errors",
        type=natural,
        metavar="N",
        help="fail with more than N errors (default: go on, whatever their number)",
    )
    parser.add_argument(
        "--shards",
        type=positive,
        default=1,
        metavar="N",
        help="import up to N key ranges at a time (default: 1)",
    )
    parser.add_argument("--verbose", action="store_true", help="log to standard error")


def _sync(options: argparse.Namespace) -> int:
    from labelport.connections import open_store
    from labelport.importing import ImportOptions, import_storage

    _log_to_stderr(options.verbose)
    with open_catalog(options) as catalog:
        with catalog.read() as connection:
            storage = storages.get(connection, options.storage)
            before = storages.state(connection, storage.id)
        with _picture(storage, before.counters.scanned) as on_progress:
            state = import_storage(
                catalog,
                open_store,
                storage,
                job=f"cli {socket.gethostname()}:{os.getpid()}",
                options=ImportOptions(
                    reimport_changed=options.reimport_changed, max_errors=options.max_errors
                ),
                shards=options.shards,
                on_progress=on_progress,
            )
    if options.json:
        print_json(of_storage(storage, state))
    else:
        _summarize(storage, state)
    return 0 if state.status is Status.COMPLETED else 1


def _log_to_stderr(verbose: bool) -> None:
    """Without *verbose* the outcome says it all, and a log would only tear the picture."""
    if verbose:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    else:
        logging.getLogger("labelport").addHandler(logging.NullHandler())


@contextmanager
def _picture(storage: Storage, expected: int) -> Iterator[OnProgress | None]:
    """A live line on standard error, if that is a terminal.

    :param expected: how many objects the sync before met, which tells how far this one is; 0 if
        nobody knows
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns = ("[bold]{task.description}", "{task.fields[numbers]}")
    with Progress(
        TextColumn(columns[0]),
        BarColumn(),
        TextColumn(columns[1]),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    ) as progress:
        line = progress.add_task(storage.name, total=expected or None, numbers="")

        def tell(now: ImportProgress) -> None:
            scanned = now.counters.scanned
            progress.update(
                line,
                completed=scanned,
                total=expected if scanned <= expected else None,
                numbers=_numbers(now),
            )

        yield tell


def _numbers(progress: ImportProgress) -> str:
    counters = progress.counters
    errors = f", {counters.errors:,} errors" if counters.errors else ""
    return (
        f"{counters.scanned:,} objects, {counters.created:,} new tasks{errors}, "
        f"{progress.rate:,.0f}/s"
    )


def _summarize(storage: Storage, state: SyncState) -> None:
    seconds = state.meta["duration"]
    took = f" in {seconds:.1f} s" if isinstance(seconds, float) else ""
    say(f"the sync of {storage.name} {_ENDS[state.status]}{took}")
    print_table(["counter", "number"], asdict(state.counters).items())
    if state.counters.errors:
        say(f"what was wrong, and what to do: labelport errors {storage.name}")
    if state.traceback:
        complain(state.traceback)


_ENDS = {
    Status.COMPLETED: "completed",
    Status.COMPLETED_WITH_ERRORS: "completed with errors",
    Status.FAILED: "failed",
}
