"""``labelport tasks``."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from urllib.parse import urlsplit

from labelport.catalog import projects, storages, tasks, users
from labelport.cli.options import (
    Commands,
    add_command,
    add_group,
    add_paging,
    open_catalog,
    positive,
)
from labelport.cli.output import print_fields, print_json, print_table, say
from labelport.cli.shapes import Shape, of_link, of_task, of_task_details
from labelport.errors import ConfigurationError
from labelport.links import MIN_SECRET_LENGTH, signed_url
from labelport.model import Storage, Task, User
from labelport.resolving import Resolution, proxy_url, resolve

_SHOWN_DATA = 100  # characters in a table
_LINK_MINUTES = 60


def add_commands(commands: Commands[argparse.ArgumentParser]) -> None:
    group = add_group(commands, "tasks", "What is to be labeled.")
    show_all = add_command(group, "list", _list, "List tasks, a page at a time.")
    show_all.add_argument("--project", metavar="PROJECT", help="only those of this title or id")
    show_all.add_argument("--storage", metavar="STORAGE", help="only those this name or id brought")
    add_paging(show_all, "task")
    show = add_command(group, "show", _show, "Show a task with its annotations and predictions.")
    show.add_argument("task", type=positive, help="id")
    show.add_argument(
        "--proxy-url",
        type=_web_address,
        metavar="URL",
        help="show URLs of the storage proxy here instead of URIs in the data",
    )
    show.add_argument(
        "--links-for",
        metavar="EMAIL",
        help="sign these URLs with LABELPORT_PROXY_SECRET, so that they work without a login "
        "and show what this user may see",
    )
    show.add_argument(
        "--minutes",
        type=positive,
        metavar="N",
        help=f"how long signed links hold (default: {_LINK_MINUTES})",
    )


def _web_address(text: str) -> str:
    try:
        parts = urlsplit(text)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise argparse.ArgumentTypeError(f"{text!r} is not like https://media.example.org")
    return text


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
    if options.links_for and not options.proxy_url:
        raise ConfigurationError("links lead to the storage proxy: add --proxy-url URL")
    if options.minutes and not options.links_for:
        raise ConfigurationError("--minutes is of signed links: add --links-for EMAIL")
    with open_catalog(options) as catalog, catalog.read() as connection:
        details = tasks.get(connection, options.task)
        known = storages.list_all(connection, details.task.project_id)
        user = users.get(connection, options.links_for) if options.links_for else None
    resolution = _resolution(details.task, known, user, options) if options.proxy_url else None
    if options.json:
        print_json(of_task_details(details) | (_of_resolution(resolution) if resolution else {}))
        return 0
    _print_task(details.task, resolution)
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
    if resolution:
        _tell(resolution)
    return 0


def _resolution(
    task: Task, known: Sequence[Storage], user: User | None, options: argparse.Namespace
) -> Resolution:
    to_url: Callable[[str], str] = partial(proxy_url, options.proxy_url, "tasks", task.id)
    if user and not user.active:
        raise ConfigurationError(f"{user.email} is not active: the proxy would refuse the links")
    if user:
        expires = int(time.time()) + 60 * (options.minutes or _LINK_MINUTES)
        signed = partial(signed_url, options.proxy_url, "tasks", task.id)
        to_url = partial(signed, secret=_secret(), user_id=user.id, expires=expires)
    prefer = task.link.storage_id if task.link else None
    return resolve(json.loads(task.data), known, to_url, prefer=prefer)


def _secret() -> str:
    secret = os.environ.get("LABELPORT_PROXY_SECRET", "")
    if len(secret) < MIN_SECRET_LENGTH:
        raise ConfigurationError(
            "signing links takes the secret that the proxy has: set LABELPORT_PROXY_SECRET, "
            f"at least {MIN_SECRET_LENGTH} characters"
        )
    return secret


def _of_resolution(resolution: Resolution) -> Shape:
    """``data`` with URLs; ``unresolved``, an array of URIs; and ``ambiguous``, an array of
    ``{uri, storages}`` with the names of all that could answer, first the one that does."""
    ambiguous = [
        {"uri": uri, "storages": [storage.name for storage in answering]}
        for uri, answering in resolution.ambiguous
    ]
    unresolved = list(resolution.unresolved)
    return {"data": resolution.data, "unresolved": unresolved, "ambiguous": ambiguous}


def _tell(resolution: Resolution) -> None:
    for uri in resolution.unresolved:
        say(f"no storage of the project answers for {uri}: add one that covers it")
    for uri, (chosen, *rivals) in resolution.ambiguous:
        names = ", ".join(rival.name for rival in rivals)
        say(f"{chosen.name} answers for {uri}, and so could {names}: the same place")


def _print_task(task: Task, resolution: Resolution | None) -> None:
    data = json.dumps(resolution.data, ensure_ascii=False) if resolution else task.data
    shape = of_task(task) | {"data": data, "meta": task.meta}
    del shape["link"]
    link = of_link(task.link) if task.link else {}
    print_fields(shape | {f"link.{name}": value for name, value in link.items()})
