"""``labelport tasks``."""

from __future__ import annotations

import argparse

from labelport.catalog import projects, storages, tasks
from labelport.cli.options import (
    Commands,
    add_command,
    add_group,
    add_paging,
    open_catalog,
    positive,
)
from labelport.cli.output import print_fields, print_json, print_table, say
from labelport.cli.shapes import of_link, of_task, of_task_details
from labelport.model import Task

_SHOWN_DATA = 100  # characters in a table


def add_commands(commands: Commands[argparse.ArgumentParser]) -> None:
    group = add_group(commands, "tasks", "What is to be labeled.")
    show_all = add_command(group, "list", _list, "List tasks, a page at a time.")
    show_all.add_argument("--project", metavar="PROJECT", help="only those of this title or id")
    show_all.add_argument("--storage", metavar="STORAGE", help="only those this name or id brought")
    add_paging(show_all, "task")
    show = add_command(group, "show", _show, "Show a task with its annotations and predictions.")
    show.add_argument("task", type=positive, help="id")


def _list(options: argparse.Namespace) -> int:
    with open_catalog(options) as catalog, catalog.read() as connection:
        project = projects.get(connection, options.project) if options.project else None
        storage = storages.get(connection, options.storage) if options.storage else None
        found = tasks.page(
            connection,
            project_id=project.id if project else None,
            storage_id=storage.id if storage else None,
            after=options.after,
            limit=options.limit,
        )
    following = found[-1].id if len(found) == options.limit else None
    if options.json:
        print_json({"tasks": [of_task(task) for task in found], "next": following})
        return 0
    print_table(
        ["id", "number", "annotations", "predictions", "key", "row", "data"],
        [_row(task) for task in found],
    )
    if following:
        say(f"for more: --after {following}")
    return 0


def _row(task: Task) -> tuple[object, ...]:
    data = task.data if len(task.data) <= _SHOWN_DATA else task.data[:_SHOWN_DATA] + "…"
    link = (task.link.key, task.link.row_index) if task.link else (None, None)
    return (task.id, task.inner_id, task.total_annotations, task.total_predictions, *link, data)


def _show(options: argparse.Namespace) -> int:
    with open_catalog(options) as catalog, catalog.read() as connection:
        details = tasks.get(connection, options.task)
    if options.json:
        print_json(of_task_details(details))
        return 0
    _print_task(details.task)
    if details.annotations:
        print_table(
            ["annotation", "by", "updated", "cancelled", "result"],
            [
                (a.id, a.completed_by, a.updated_at, a.was_cancelled, a.result)
                for a in details.annotations
            ],
        )
    if details.predictions:
        print_table(
            ["prediction", "model version", "score", "result"],
            [(p.id, p.model_version, p.score, p.result) for p in details.predictions],
        )
    return 0


def _print_task(task: Task) -> None:
    shape = of_task(task) | {"data": task.data, "meta": task.meta}
    del shape["link"]
    link = of_link(task.link) if task.link else {}
    print_fields(shape | {f"link.{name}": value for name, value in link.items()})
