"""Fields of an answer's head as they are sent: checked when they are made, and not each time."""

from __future__ import annotations

from typing import NewType

#: Lines of a head, each with its end.
Fields = NewType("Fields", bytes)

NONE = Fields(b"")

Pair = tuple[bytes, bytes]  # name in lower case, value

_CONTROLS = bytes(code for code in (*range(32), 127) if code not in b"\t\r\n")


def fields(*pairs: Pair) -> Fields:
    """A line for each of *pairs*. Raises `ValueError` when a value would make other lines."""
    lines = b"".join([b"%b: %b\r\n" % pair for pair in pairs])
    ends = lines.count(b"\n"), lines.count(b"\r")
    if ends != (len(pairs), len(pairs)) or len(lines.translate(None, _CONTROLS)) != len(lines):
        raise ValueError("the value of a header has control characters")
    return Fields(lines)


def pairs_of(lines: Fields) -> list[Pair]:
    """The pairs that *lines* were made of, as ASGI has them."""
    split = (line.partition(b": ") for line in lines.split(b"\r\n")[:-1])
    return [(name, value) for name, _, value in split]
