"""``labelport ledger``: which annotation an export storage holds where, and what went wrong."""

from __future__ import annotations

import argparse

from labelport.catalog import ledger, storages
from labelport.cli.options import Commands, add_command, add_paging, open_catalog
from labelport.cli.output import print_json, print_table, say
from labelport.cli.shapes import of_export_link
from labelport.errors import ConfigurationError
from labelport.model import Direction, ExportLink


def add_commands(commands: Commands[argparse.ArgumentParser]) -> None:
    parser = add_command(
        commands, "ledger", _ledger, "List where an export storage's annotations went."
    )
    parser.add_argument("storage", help="name or id")
    parser.add_argument(
        "--failed",
        action="store_const",
        const=True,
        help="only those whose latest attempt failed; the next export tries them again",
    )
    add_paging(parser, "annotation")


def _ledger(options: argparse.Namespace) -> int:
    with open_catalog(options) as catalog, catalog.read() as connection:
        storage = storages.get(connection, options.storage)
        if storage.direction is not Direction.EXPORT:
            raise ConfigurationError(f"{storage.name} imports; only export storages have a ledger")
        found = ledger.page(
            connection,
            storage.id,
            failed=options.failed,
            after=options.after,
            limit=options.limit,
        )
        counts = ledger.counts(connection, storage.id)
    following = found[-1].annotation_id if len(found) == options.limit else None
    if options.json:
        links = [of_export_link(link) for link in found]
        print_json({"links": links, "counts": counts._asdict(), "next": following})
        return 0
    print_table(
        ["annotation", "task", "key", "state", "attempts", "exported", "error"],
        [_row(link) for link in found],
    )
    say(", ".join(f"{number:,} {name}" for name, number in counts._asdict().items()))
    if following:
        say(f"for more: --after {following}")
    return 0


def _row(link: ExportLink) -> tuple[object, ...]:
    return (
        *(link.annotation_id, link.task_id, link.key, _state(link)),
        *(link.attempts, link.exported_at, link.error),
    )


def _state(link: ExportLink) -> str:
    if link.error is not None:
        return "failed"
    if link.deleted_at is not None:
        return "deleted"
    return "exported" if link.object_exists else "pending"
