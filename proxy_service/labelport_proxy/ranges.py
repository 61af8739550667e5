"""``Range`` headers: which bytes are asked for, and which are served. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

from labelport.model import ByteRange

_LONGEST = 200  # characters of a header that is worth reading
_ONE = re.compile(r"([0-9]+)-([0-9]*)|-([0-9]+)")


class NotSatisfiable(Exception):
    """No byte of the object lies in the range."""


class Asked(NamedTuple):
    """The one range of a request, not yet bounded."""

    first: int | None  #: None: the last ``last`` bytes
    last: int | None  #: counted in; None: to the end


def parse(header: str | None) -> Asked | None:
    """The range that *header* asks for; None: the whole object.

    That is also the answer to what RFC 9110 lets a server ignore: other units, several ranges,
    and what is no range at all.
    """
    if header is None or len(header) > _LONGEST or header[:6].lower() != "bytes=":
        return None
    ranges = [part for text in header[6:].split(",") if (part := text.strip(" \t"))]
    found = _ONE.fullmatch(ranges[0]) if len(ranges) == 1 else None
    if found is None:
        return None
    first, last, suffix = found.groups()
    if suffix:
        return Asked(None, int(suffix))
    asked = Asked(int(first), int(last) if last else None)
    return None if asked.last is not None and asked.last < int(first) else asked


def bounded(asked: Asked, size: int | None, cap: int) -> ByteRange | None:
    """The bytes to serve: at most *cap*, from where *asked* begins.

    None, the whole object, for the end of an empty one: there is such a range, and no 206 can say
    so.

    :param size: of the object; None while it is not known, which a suffix cannot do with

    Raises `NotSatisfiable`.
    """
    if asked.first is None:
        if size is None:
            raise ValueError("the end of an object of unknown size")
        if size == 0 and asked.last:
            return None
        return _within(size - min(asked.last or 0, size), size, size, cap)
    stop = asked.first + cap if asked.last is None else asked.last + 1
    return _within(asked.first, stop, size, cap)


def _within(start: int, stop: int, size: int | None, cap: int) -> ByteRange:
    if size is not None:
        stop = min(stop, size)
        if start >= stop:
            raise NotSatisfiable
    return ByteRange(start, min(stop, start + cap))
