"""``labelport sync`` and ``export``: a whole sync, here and now, with a live picture of it."""

from __future__ import annotations

import argparse
import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from labelport.catalog import Catalog, storages
from labelport.cli.options import Commands, add_command, natural, open_catalog, positive
from labelport.cli.output import complain, print_json, print_table, say
from labelport.cli.shapes import of_storage
from labelport.errors import ConfigurationError
from labelport.model import Counters, Direction, Status, Storage, SyncState

if TYPE_CHECKING:
    from labelport.progress import OnProgress
    from labelport.progress import Progress as SyncProgress


_Flow = Callable[
    [argparse.Namespace, Catalog, Storage, "OnProgress | None"],
    SyncState,
]


def add_commands(commands: Commands[argparse.ArgumentParser]) -> None:
    sync = add_command(
        commands,
        "sync",
        _sync,
        "Import what is new in a storage, or export what is new or changed to one. A sync that "
        "was stopped goes on where it was.",
    )
    _add_sync_options(sync)
    sync.add_argument(
        "--reimport-changed",
        action="store_true",
        help="of an import: read changed objects again and replace the data of their tasks",
    )
    export = add_command(
        commands,
        "export",
        _export,
        "Export annotations to a storage; what failed before is tried again by each export.",
    )
    _add_sync_options(export)
    select = export.add_mutually_exclusive_group()
    for name, help_text in (
        ("changed", "those that are new, or whose bytes would differ (default)"),
        ("new", "those that were never exported"),
        ("all", "every one, whether it is in the store already or not"),
    ):
        select.add_argument(
            f"--{name}", action="store_const", dest="select", const=name, help=help_text
        )
    export.set_defaults(select="changed")


def _add_sync_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("storage", help="name or id")
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
        help="work on up to N ranges of keys, or of ids, at a time (default: 1)",
    )
    parser.add_argument("--verbose", action="store_true", help="log to standard error")


def _sync(options: argparse.Namespace) -> int:
    with open_catalog(options) as catalog:
        with catalog.read() as connection:
            storage = storages.get(connection, options.storage)
        if storage.direction is Direction.IMPORT:
            return _run(options, catalog, storage, _import_here)
        if options.reimport_changed:
            raise ConfigurationError(f"{storage.name} exports; --reimport-changed is of imports")
        options.select = "changed"
        return _run(options, catalog, storage, _export_here)


def _export(options: argparse.Namespace) -> int:
    with open_catalog(options) as catalog:
        with catalog.read() as connection:
            storage = storages.get(connection, options.storage)
        return _run(options, catalog, storage, _export_here)


def _run(options: argparse.Namespace, catalog: Catalog, storage: Storage, flow: _Flow) -> int:
    _log_to_stderr(options.verbose)
    with catalog.read() as connection:
        before = storages.state(connection, storage.id)
    with _picture(storage, before.counters.scanned) as on_progress:
        state = flow(options, catalog, storage, on_progress)
    if options.json:
        print_json(of_storage(storage, state))
    else:
        _summarize(storage, state)
    return 0 if state.status is Status.COMPLETED else 1


def _import_here(
    options: argparse.Namespace, catalog: Catalog, storage: Storage, on_progress: OnProgress | None
) -> SyncState:
    from labelport.connections import open_store
    from labelport.importing import ImportOptions, import_storage

    return import_storage(
        catalog,
        open_store,
        storage,
        job=_job(),
        options=ImportOptions(
            reimport_changed=options.reimport_changed, max_errors=options.max_errors
        ),
        shards=options.shards,
        on_progress=on_progress,
    )


def _export_here(
    options: argparse.Namespace, catalog: Catalog, storage: Storage, on_progress: OnProgress | None
) -> SyncState:
    from labelport.connections import open_store
    from labelport.exporting import ExportOptions, Selection, export_storage

    return export_storage(
        catalog,
        open_store,
        storage,
        job=_job(),
        options=ExportOptions(select=Selection(options.select), max_errors=options.max_errors),
        shards=options.shards,
        on_progress=on_progress,
    )


def _job() -> str:
    return f"cli {socket.gethostname()}:{os.getpid()}"


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

        def tell(now: SyncProgress) -> None:
            scanned = now.counters.scanned
            progress.update(
                line,
                completed=scanned,
                total=expected if scanned <= expected else None,
                numbers=_numbers(storage, now),
            )

        yield tell


def _numbers(storage: Storage, progress: SyncProgress) -> str:
    counters = progress.counters
    errors = f", {counters.errors:,} errors" if counters.errors else ""
    if storage.direction is Direction.IMPORT:
        done = f"{counters.scanned:,} objects, {counters.created:,} new tasks"
    else:
        written = counters.created + counters.updated
        done = f"{counters.scanned:,} looked at, {written:,} objects written"
    return f"{done}{errors}, {progress.rate:,.0f}/s"


def _summarize(storage: Storage, state: SyncState) -> None:
    seconds = state.meta["duration"]
    took = f" in {seconds:.1f} s" if isinstance(seconds, float) else ""
    say(f"the sync of {storage.name} {_ENDS[state.status]}{took}")
    imports = storage.direction is Direction.IMPORT
    counters = asdict(state.counters) if imports else _of_export(state.counters)
    print_table(["counter", "number"], counters.items())
    if state.counters.errors:
        command = f"errors {storage.name}" if imports else f"ledger {storage.name} --failed"
        say(f"what was wrong, and what to do: labelport {command}")
    if state.traceback:
        complain(state.traceback)


def _of_export(counters: Counters) -> Mapping[str, int]:
    """An export's counters, by what they mean there."""
    return {
        "looked at": counters.scanned,
        "objects written": counters.created,
        "objects written anew": counters.updated,
        "unchanged": counters.existed,
        "objects deleted": counters.missing,
        "errors": counters.errors,
    }


_ENDS = {
    Status.COMPLETED: "completed",
    Status.COMPLETED_WITH_ERRORS: "completed with errors",
    Status.FAILED: "failed",
}
