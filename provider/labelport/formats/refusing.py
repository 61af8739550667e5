"""Rows that must not reach a database: found cheaply by the block, told in words by the row."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator

from labelport.errors import FormatError

#: Levels of lists and objects inside each other that a row may have.
MAX_DEPTH = 500

#: A row of fewer characters cannot be nested too deep.
SHALLOW = 2 * MAX_DEPTH

_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_NO_BRACKETS = bytes(sorted(set(range(256)) - set(b"[]{}")))
_WINDOW = 2**16
_ONE_KIND = bytes.maketrans(b"{}", b"[]")

# Every digit and sign becomes 0, so that one search finds all numbers with a long exponent.
_FOLD = bytes.maketrans(b"123456789E+-", b"000000000e00")
_LONG_EXPONENT = b"0e000"
_BIG_EXPONENT = re.compile(rb"[eE][+-]?\d{3}")
_MANY_DIGITS = b"0" * 200
_LENIENT = json.JSONDecoder(strict=False, parse_int=len, parse_float=len, parse_constant=len)
_LARGEST_EXPONENT = 400
_MOST_DIGITS = 1000


def suspicious(block: bytes) -> bool:
    """Whether some row of *block* may hold what :func:`refuse` refuses; never a false no."""
    if b"\\" in block and b"\\u0000" in block:
        return True
    if not block.isascii():
        try:
            block.decode()
        except UnicodeDecodeError:
            return True
    return _suspicious_number(block)


def _suspicious_number(block: bytes) -> bool:
    folded = block.translate(_FOLD)
    if _MANY_DIGITS in folded:
        return True
    at = folded.find(_LONG_EXPONENT)
    while at >= 0:
        # In a string such as a checksum, what stands before the digits gives it away.
        before = folded[max(at - len(_MANY_DIGITS), 0) : at + 1].rstrip(b"0.")[-1:]
        if before in b":,[ \t\r\n" and _BIG_EXPONENT.match(block, at + 1):
            return True
        at = folded.find(_LONG_EXPONENT, at + 1)
    return False


def refuse(row: bytes) -> None:
    """Raise FormatError if *row*, JSON or not, holds what the parser bears and databases do not."""
    try:
        text = row.decode()
    except UnicodeDecodeError as error:
        raise FormatError(
            f"not UTF-8 at byte {error.start}", "Save the object as UTF-8 and sync again"
        ) from None
    if _NUL.search(row):
        raise FormatError("\\u0000 in a string", "Remove it; no database keeps it")
    if _suspicious_number(row):
        _refuse_numbers(text)


def refuse_depth(text: str) -> None:
    """Raise FormatError if *text*, which is sound JSON, is nested deeper than MAX_DEPTH."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return
    pairs = "".join(_outside_strings(text)).encode().translate(_ONE_KIND, _NO_BRACKETS)
    for _ in range(MAX_DEPTH):  # each time the innermost level goes
        pairs = pairs.replace(b"[]", b"")
        if not pairs:
            return
    raise too_deep()


def _outside_strings(text: str) -> Iterator[str]:
    """What stands between the strings of *text*, a little at a time: the parts are many."""
    text = text.replace("\\\\", "").replace('\\"', "")
    inside = 0
    for start in range(0, len(text), _WINDOW):
        parts = text[start : start + _WINDOW].split('"')
        yield "".join(parts[inside::2])
        inside ^= (len(parts) - 1) & 1


def too_deep() -> FormatError:
    return FormatError(f"nested deeper than {MAX_DEPTH} levels", "Flatten the row")


def whole(row: bytes) -> bool:
    """Whether *row* is one value for a parser that bears every fault but those of the grammar.

    If so, it ends where it seems to end, although no database may have it.
    """
    try:
        _LENIENT.decode(row.decode(errors="replace"))
    except json.JSONDecodeError:
        return False
    except RecursionError:
        return True
    return True


def explain(row: bytes) -> FormatError:
    """Why the parser refused *row*, the most telling fault first."""
    try:
        refuse(row)
        text = row.decode()
        _refuse_numbers(text)
    except FormatError as error:
        return error
    try:
        json.loads(text)
    except json.JSONDecodeError:
        return FormatError("a control character in a string", "Escape it, as in \\n or \\t")
    return FormatError("half of a surrogate pair in a string", "Write the characters as UTF-8")


def _refuse_numbers(text: str) -> None:
    """Raise FormatError if *text* holds a NaN or a number beyond what databases can store.

    The whole text is read first, by a parser that bears such numbers.
    """
    odd: list[str] = []

    def number(digits: str) -> None:
        if _out_of_range(digits):
            odd.append(digits)

    lenient = json.JSONDecoder(
        strict=False, parse_constant=odd.append, parse_float=number, parse_int=number
    )
    try:
        lenient.decode(text)
    except json.JSONDecodeError as error:
        raise FormatError(
            f"invalid JSON at character {error.pos}: {error.msg}",
            "Repair the row; a JSON library writes it correctly",
        ) from None
    except RecursionError:
        raise too_deep() from None
    if odd:
        raise FormatError(f"{odd[0][:40]} is no number in JSON or too large", "Use null instead")


def _out_of_range(number: str) -> bool:
    digits, _, exponent = number.lower().partition("e")
    return (
        len(digits) > _MOST_DIGITS
        or len(exponent) > len("-0000")
        or abs(int(exponent or 0)) > _LARGEST_EXPONENT
        or not math.isfinite(float(number))
    )
