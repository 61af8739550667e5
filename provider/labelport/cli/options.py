"""What every command takes, and the types of arguments."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich_argparse import RichHelpFormatter

from labelport.catalog import Catalog
from labelport.catalog.upgrading import require_current

Commands = argparse._SubParsersAction  # argparse gives it no public name


def add_group(
    commands: Commands[argparse.ArgumentParser], name: str, help: str
) -> Commands[argparse.ArgumentParser]:
    """A command that only holds others, such as ``labelport storages …``."""
    parser = commands.add_parser(
        name, help=help, description=help, formatter_class=RichHelpFormatter
    )
    return parser.add_subparsers(title="commands", metavar="COMMAND", required=True)


def add_command(
    commands: Commands[argparse.ArgumentParser],
    name: str,
    run: Callable[[argparse.Namespace], int],
    help: str,
) -> argparse.ArgumentParser:
    """A command that runs *run*, which returns the exit status."""
    parser = commands.add_parser(
        name, help=help, description=help, formatter_class=RichHelpFormatter
    )
    parser.set_defaults(run=run)
    parser.add_argument("--json", action="store_true", help="answer in JSON, for programs")
    parser.add_argument(
        "--catalog",
        metavar="URL",
        help="the catalog: sqlite:///file or postgresql://host/database "
        "(default: LABELPORT_CATALOG_URL, or sqlite:///labelport.db)",
    )
    return parser


def add_paging(parser: argparse.ArgumentParser, what: str) -> None:
    """``--after`` and ``--limit`` of a command that lists *what*."""
    parser.add_argument(
        "--after",
        type=natural,
        default=0,
        metavar="ID",
        help=f"begin after the {what} of this id, the next of the page before",
    )
    parser.add_argument(
        "--limit", type=positive, default=100, metavar="N", help="at most N (default: 100)"
    )


@contextmanager
def open_catalog(options: argparse.Namespace) -> Iterator[Catalog]:
    """The catalog that the options name, which must be up to date."""
    with Catalog(options.catalog) as catalog:
        require_current(catalog)
        yield catalog


def natural(text: str) -> int:
    """An argument that is a whole number from 0."""
    return _number(text, at_least=0)


def positive(text: str) -> int:
    """An argument that is a whole number from 1."""
    return _number(text, at_least=1)


def _number(text: str, *, at_least: int) -> int:
    try:
        number = int(text)
    except ValueError:
        number = at_least - 1
    if not at_least <= number < 2**63:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {at_least}")
    return number
