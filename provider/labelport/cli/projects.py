"""``labelport projects``."""

from __future__ import annotations

import argparse

from labelport.catalog import projects
from labelport.cli.options import Commands, add_command, add_group, open_catalog, positive
from labelport.cli.output import print_json, print_table, say
from labelport.cli.shapes import of_project


def add_commands(commands: Commands[argparse.ArgumentParser]) -> None:
    group = add_group(commands, "projects", "What tasks and storages belong to.")
    add = add_command(group, "add", _add, "Create a project.")
    add.add_argument("title")
    add.add_argument(
        "--maximum-annotations",
        type=positive,
        default=1,
        metavar="N",
        help="how many annotations each task wants (default: 1)",
    )
    add_command(group, "list", _list, "List the projects.")


def _add(options: argparse.Namespace) -> int:
    with open_catalog(options) as catalog, catalog.begin() as connection:
        project = projects.add(
            connection, options.title, maximum_annotations=options.maximum_annotations
        )
    if options.json:
        print_json(of_project(project))
    else:
        say(f"project {project.title} has id {project.id}")
    return 0


def _list(options: argparse.Namespace) -> int:
    with open_catalog(options) as catalog, catalog.read() as connection:
        found = projects.list_all(connection)
    if options.json:
        print_json([of_project(project) for project in found])
    else:
        print_table(
            ["id", "title", "maximum annotations", "created"],
            [(p.id, p.title, p.maximum_annotations, p.created_at) for p in found],
        )
    return 0
