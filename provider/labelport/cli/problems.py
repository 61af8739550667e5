"""``labelport errors``: what a sync could not import, and what to do about it."""

from __future__ import annotations

import argparse

from labelport.catalog import problems, storages
from labelport.cli.options import Commands, add_command, add_paging, open_catalog
from labelport.cli.output import print_json, print_table, say
from labelport.cli.shapes import of_problem


def add_commands(commands: Commands[argparse.ArgumentParser]) -> None:
    parser = add_command(
        commands,
        "errors",
        _errors,
        "List the objects and rows that the latest sync of a storage could not import.",
    )
    parser.add_argument("storage", help="name or id")
    add_paging(parser, "error")


def _errors(options: argparse.Namespace) -> int:
    with open_catalog(options) as catalog, catalog.read() as connection:
        storage = storages.get(connection, options.storage)
        found, following = problems.page(
            connection, storage.id, after=options.after, limit=options.limit
        )
    if options.json:
        print_json({"errors": [of_problem(p) for p in found], "next": following})
        return 0
    if not found:
        say(f"the latest sync of {storage.name} has no {'more ' if options.after else ''}errors")
        return 0
    print_table(
        ["key", "row group", "row", "reason", "remedy"],
        [(p.key, p.row_group, p.row, p.reason, p.remedy) for p in found],
    )
    if following:
        say(f"for more: --after {following}")
    return 0
