"""``labelport annotations``: what people said of tasks."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import BinaryIO

from labelport.catalog import annotations as saved
from labelport.catalog import projects
from labelport.cli.options import (
    Commands,
    add_command,
    add_group,
    add_paging,
    open_catalog,
    positive,
)
from labelport.cli.output import print_fields, print_json, print_table, say
from labelport.cli.shapes import of_annotation, of_problem
from labelport.errors import ConfigurationError
from labelport.model import Annotation, Problem

_SHOWN_RESULT = 100  # characters in a table


def add_commands(commands: Commands[argparse.ArgumentParser]) -> None:
    group = add_group(commands, "annotations", "What people said of tasks.")
    bring = add_command(
        group,
        "import",
        _import,
        "Create, change and delete annotations by the rows of a file: a JSON array, or JSONL.",
    )
    bring.add_argument(
        "file",
        help='rows {"task": id, "result": […], "completed_by": …} to create, {"id": id, …} to '
        'change, {"id": id, "deleted": true} to delete; - for standard input',
    )
    show_all = add_command(group, "list", _list, "List annotations, a page at a time.")
    show_all.add_argument("--project", metavar="PROJECT", help="only those of this title or id")
    show_all.add_argument("--task", type=positive, metavar="ID", help="only those of this task")
    add_paging(show_all, "annotation")
    show = add_command(group, "show", _show, "Show an annotation with its result.")
    show.add_argument("annotation", type=positive, help="id")
    delete = add_command(
        group, "delete", _delete, "Delete an annotation; an export deletes its object, if it may."
    )
    delete.add_argument("annotation", type=positive, help="id")


def _import(options: argparse.Namespace) -> int:
    from labelport.annotating import annotate

    numbers = {"created": 0, "updated": 0, "deleted": 0}
    problems: list[Problem] = []
    with open_catalog(options) as catalog, _open(options.file) as file:
        for step in annotate(catalog, options.file, file):
            numbers = {name: number + getattr(step, name) for name, number in numbers.items()}
            problems += step.problems
    if options.json:
        print_json(numbers | {"errors": [of_problem(problem) for problem in problems]})
        return 1 if problems else 0
    say(", ".join(f"{number:,} {name}" for name, number in numbers.items()))
    if problems:
        print_table(["row", "reason", "remedy"], [(p.row, p.reason, p.remedy) for p in problems])
        say(f"{len(problems):,} rows were left out; repair them, and import those alone")
    return 1 if problems else 0


@contextmanager
def _open(path: str) -> Iterator[BinaryIO]:
    try:
        opened = nullcontext(sys.stdin.buffer) if path == "-" else open(path, "rb")  # noqa: SIM115
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
    with opened as file:
        yield file


def _list(options: argparse.Namespace) -> int:
    with open_catalog(options) as catalog, catalog.read() as connection:
        project = projects.get(connection, options.project) if options.project else None
        found = saved.page(
            connection,
            task_id=options.task,
            project_id=project.id if project else None,
            after=options.after,
            limit=options.limit,
        )
    following = found[-1].id if len(found) == options.limit else None
    if options.json:
        print_json({"annotations": [of_annotation(each) for each in found], "next": following})
        return 0
    print_table(
        ["id", "task", "by", "updated", "cancelled", "result"], [_row(each) for each in found]
    )
    if following:
        say(f"for more: --after {following}")
    return 0


def _row(annotation: Annotation) -> tuple[object, ...]:
    result = annotation.result
    return (
        *(annotation.id, annotation.task_id, annotation.completed_by, annotation.updated_at),
        annotation.was_cancelled,
        result if len(result) <= _SHOWN_RESULT else result[:_SHOWN_RESULT] + "…",
    )


def _show(options: argparse.Namespace) -> int:
    with open_catalog(options) as catalog, catalog.read() as connection:
        annotation = saved.get(connection, options.annotation)
    shape = of_annotation(annotation)
    if options.json:
        print_json(shape)
    else:
        print_fields(shape | {"result": annotation.result})
    return 0


def _delete(options: argparse.Namespace) -> int:
    with open_catalog(options) as catalog, catalog.begin() as connection:
        saved.delete(connection, options.annotation)
    if options.json:
        print_json({"deleted": options.annotation})
    else:
        say(f"annotation {options.annotation} is deleted")
    return 0
