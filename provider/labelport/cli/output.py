"""Tables for people and JSON for programs on standard output, complaints on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

#: Wide enough that a table in a pipe is never wrapped.
_PIPE_WIDTH = 100_000


def print_json(value: object) -> None:
    """Write *value*, one JSON document. ASCII only, so that no locale can spoil it."""
    json.dump(value, sys.stdout, indent=2)
    sys.stdout.write("\n")


def say(text: str) -> None:
    """Write a sentence for people."""
    _console().print(shown(text), soft_wrap=True)


def complain(text: str) -> None:
    """Write a message to standard error."""
    sys.stderr.write(f"labelport: {text}\n")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table; numbers to the right, whatever else to the left."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    cells = [list(row) for row in rows]
    for index, name in enumerate(columns):
        numbers = any(type(row[index]) is int for row in cells)
        table.add_column(name, justify="right" if numbers else "left", overflow="fold")
    for row in cells:
        table.add_row(*(shown(value) for value in row))
    _console().print(table)


def print_fields(fields: Mapping[str, object]) -> None:
    """Write one thing, a line for each of its fields."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in fields.items():
        table.add_row(shown(name), shown(value))
    _console().print(table)


def shown(value: object) -> Text:
    """*value* as people read it. Text is never taken for markup or for a terminal's commands."""
    match value:
        case None | "":
            return Text("-")
        case bool():
            return Text("yes" if value else "no")
        case datetime():
            return Text(value.isoformat(sep=" ", timespec="seconds"))
        case _:
            return Text("".join(_printable(character) for character in str(value)))


def _printable(character: str) -> str:
    if character.isprintable() or character == "\n":
        return character
    return character.encode("unicode_escape").decode("ascii")


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise  # to `labelport.cli.main`, which knows the exit status


def _console() -> Console:
    console = _Console(highlight=False)
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    return console
