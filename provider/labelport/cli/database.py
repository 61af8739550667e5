"""``labelport db``: the catalog's schema."""

from __future__ import annotations

import argparse

from labelport.catalog import Catalog, upgrading
from labelport.catalog.upgrading import REMEDIES, CatalogState
from labelport.cli.options import Commands, add_command, add_group
from labelport.cli.output import print_json, say


def add_commands(commands: Commands[argparse.ArgumentParser]) -> None:
    group = add_group(commands, "db", "The catalog's tables.")
    add_command(
        group, "upgrade", _upgrade, "Make the catalog's tables, or bring them up to this version."
    )
    add_command(
        group, "check", _check, "Say whether the catalog is up to date; exit status 1 if not."
    )


def _upgrade(options: argparse.Namespace) -> int:
    with Catalog(options.catalog) as catalog:
        upgraded = upgrading.upgrade(catalog)
        if options.json:
            print_json({"state": CatalogState.UP_TO_DATE, "upgraded": upgraded})
        else:
            say(f"{catalog} {'is up to date now' if upgraded else 'was up to date already'}")
    return 0


def _check(options: argparse.Namespace) -> int:
    with Catalog(options.catalog) as catalog:
        state = upgrading.check(catalog)
        if options.json:
            print_json({"state": state})
        else:
            say(REMEDIES.get(state, f"{catalog} is {state}"))
    return 0 if state is CatalogState.UP_TO_DATE else 1
