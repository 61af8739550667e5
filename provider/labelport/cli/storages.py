"""``labelport storages``: configured places, and how their latest sync went."""

from __future__ import annotations

import argparse
import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, cast

from labelport.catalog import projects, storages
from labelport.catalog.storages import Settings
from labelport.cli.options import Commands, add_command, add_group, natural, open_catalog, positive
from labelport.cli.output import print_fields, print_json, print_table, say
from labelport.cli.shapes import of_storage
from labelport.model import Direction, ExportFormat, Storage, SyncState

if TYPE_CHECKING:
    from labelport.checking import Check


def add_commands(commands: Commands[argparse.ArgumentParser]) -> None:
    group = add_group(commands, "storages", "Places that tasks come from or annotations go to.")
    _add_add(group)
    _add_update(group)
    show_all = add_command(group, "list", _list, "List the storages and where their syncs stand.")
    show_all.add_argument("--project", metavar="PROJECT", help="only those of this title or id")
    show = add_command(group, "show", _show, "Show a storage's settings and its latest sync.")
    show.add_argument("storage", help="name or id")
    check = add_command(
        group, "check", _check, "Try what its syncs will need: list, read; exit status 1 if not."
    )
    check.add_argument("storage", help="name or id")
    check.add_argument(
        "--probe", action="store_true", help="of an export storage: also write and delete an object"
    )
    _add_remove(group)


def _add_add(group: Commands[argparse.ArgumentParser]) -> None:
    parser = add_command(group, "add", _add, "Save a new storage; nothing is contacted.")
    parser.add_argument("name", help="unique in the catalog")
    parser.add_argument("location", help="scheme://bucket/prefix; the prefix is taken literally")
    parser.add_argument("--project", required=True, metavar="PROJECT", help="its title or id")
    parser.add_argument(
        "--direction",
        choices=[str(direction) for direction in Direction],
        default=Direction.IMPORT,
        help="import tasks (default) or export annotations",
    )
    _add_settings(parser)


def _add_update(group: Commands[argparse.ArgumentParser]) -> None:
    parser = add_command(group, "update", _update, "Change a storage; what is not given stays.")
    parser.add_argument("storage", help="name or id")
    parser.add_argument("--name", help="the new name")
    parser.add_argument("--location", help="possible until objects are imported")
    _add_settings(parser)


def _add_settings(parser: argparse.ArgumentParser) -> None:
    """An option for each of `Settings`; one that is not given is not in the namespace."""
    settings = parser.add_argument_group("settings", argument_default=argparse.SUPPRESS)
    settings.add_argument("--description", metavar="TEXT")
    settings.add_argument(
        "--conn-id", metavar="ID", help="the Airflow connection that holds the credentials"
    )
    settings.add_argument(
        "--regex-filter",
        metavar="REGEX",
        help="only keys that match it, from the start of the whole key",
    )
    settings.add_argument("--presign-seconds", type=natural, metavar="N")
    _add_export_settings(settings)
    for name, help_text in (
        ("recursive-scan", "look into the folders below the prefix (default: yes)"),
        ("use-blob-urls", "each object is a task that holds its URI (default: no)"),
        ("presign", "redirect browsers to signed URLs, else proxy (default: yes)"),
        ("serve-any-key", "serve members every key, not only those in tasks (default: no)"),
        ("can-delete-objects", "deleting an annotation deletes its object (default: no)"),
        ("synchronizable", "no: only resolve URIs, never sync (default: yes)"),
    ):
        settings.add_argument(f"--{name}", action=argparse.BooleanOptionalAction, help=help_text)
    parser.add_argument(
        "--allow-overlap",
        action="store_true",
        help="though another storage of the project imports from the same place",
    )


def _add_export_settings(settings: argparse._ArgumentGroup) -> None:
    settings.add_argument(
        "--export-format",
        type=ExportFormat,
        choices=list(ExportFormat),
        help="of an export storage: an object per annotation (default), per task with all it has, "
        "or files of many rows",
    )
    settings.add_argument(
        "--key-template",
        type=lambda text: text or None,
        metavar="TEMPLATE",
        help="of an export storage: its objects' keys below the prefix, such as "
        "{date}/{source_stem}.{annotation_id}.json; empty: by id",
    )
    settings.add_argument(
        "--rows-per-file",
        type=positive,
        metavar="N",
        help="of an export storage in jsonl or parquet: annotations in a file (default: 10000)",
    )


def _add_remove(group: Commands[argparse.ArgumentParser]) -> None:
    parser = add_command(
        group, "remove", _remove, "Forget a storage and its links. The bucket is not touched."
    )
    parser.add_argument("storage", help="name or id")
    parser.add_argument(
        "--delete-tasks",
        action="store_true",
        help="delete the tasks it brought, with their annotations; without this they stay, and "
        "a new storage on the same location would import the objects once more",
    )
    parser.add_argument("--force", action="store_true", help="even in the middle of a sync")


def _add(options: argparse.Namespace) -> int:
    with open_catalog(options) as catalog, catalog.begin() as connection:
        project = projects.get(connection, options.project)
        storage = storages.add(
            connection,
            project.id,
            options.name,
            options.location,
            Direction(options.direction),
            allow_overlap=options.allow_overlap,
            **_settings(options),
        )
        state = storages.state(connection, storage.id)
    return _answer(options, storage, state, f"storage {storage.name} has id {storage.id}")


def _update(options: argparse.Namespace) -> int:
    with open_catalog(options) as catalog, catalog.begin() as connection:
        storage = storages.update(
            connection,
            storages.get(connection, options.storage).id,
            name=options.name,
            location=options.location,
            allow_overlap=options.allow_overlap,
            **_settings(options),
        )
        state = storages.state(connection, storage.id)
    return _answer(options, storage, state, f"storage {storage.name} is changed")


def _settings(options: argparse.Namespace) -> Settings:
    given = {name: getattr(options, name) for name in Settings.__annotations__ if name in options}
    return cast(Settings, given)


def _answer(options: argparse.Namespace, storage: Storage, state: SyncState, sentence: str) -> int:
    if options.json:
        print_json(of_storage(storage, state))
    else:
        say(sentence)
    return 0


def _list(options: argparse.Namespace) -> int:
    with open_catalog(options) as catalog, catalog.read() as connection:
        project = projects.get(connection, options.project) if options.project else None
        found = storages.list_all(connection, project.id if project else None)
        states = [storages.state(connection, storage.id) for storage in found]
    if options.json:
        print_json([of_storage(*pair) for pair in zip(found, states, strict=True)])
        return 0
    print_table(
        ["id", "name", "direction", "location", "status", "last sync", "count", "errors"],
        [_row(*pair) for pair in zip(found, states, strict=True)],
    )
    return 0


def _row(storage: Storage, state: SyncState) -> tuple[object, ...]:
    return (
        *(storage.id, storage.name, storage.direction, storage.location),
        *(state.status, state.last_sync, state.last_sync_count, state.counters.errors),
    )


def _show(options: argparse.Namespace) -> int:
    with open_catalog(options) as catalog, catalog.read() as connection:
        storage = storages.get(connection, options.storage)
        shape = of_storage(storage, storages.state(connection, storage.id))
    if options.json:
        print_json(shape)
        return 0
    meta = cast("dict[str, object]", shape.pop("meta"))
    traceback = shape.pop("traceback")
    print_fields(shape | {f"meta.{name}": value for name, value in meta.items()})
    if traceback:
        say(f"\ntraceback:\n{traceback}")
    return 0


def _check(options: argparse.Namespace) -> int:
    with open_catalog(options) as catalog, catalog.read() as connection:
        storage = storages.get(connection, options.storage)
    checks = asyncio.run(_try(storage, probe=options.probe))
    if options.json:
        print_json([asdict(check) for check in checks])
    else:
        print_table(
            ["check", "passed", "detail", "remedy"],
            [(check.name, check.ok, check.detail, check.remedy) for check in checks],
        )
    return 0 if all(check.ok for check in checks) else 1


async def _try(storage: Storage, *, probe: bool) -> list[Check]:
    from labelport.checking import validate
    from labelport.connections import open_store

    store = open_store(storage)
    try:
        return await validate(store, storage, probe=probe)
    finally:
        await store.close()


def _remove(options: argparse.Namespace) -> int:
    with open_catalog(options) as catalog, catalog.begin() as connection:
        storage = storages.get(connection, options.storage)
        removed = storages.remove(
            connection, storage.id, delete_tasks=options.delete_tasks, force=options.force
        )
    if options.json:
        print_json(removed._asdict())
    else:
        say(
            f"storage {storage.name} is removed; {removed.tasks_kept} of its tasks are kept, "
            f"{removed.tasks_deleted} are deleted"
        )
    return 0
