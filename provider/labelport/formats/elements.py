"""The exact search for the commas between an array's elements."""

from __future__ import annotations

import re
from collections.abc import Iterator

# Possessive (``*+``): a long run costs no memory and is never tried again.
_STRING_REST = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
_STRING = rb'"' + _STRING_REST.pattern + rb'"'
_PLAIN = rb'[^"\[\]{}]*+'


def _pair(inside: bytes) -> bytes:
    """A list or object that holds nothing but *inside*, strings and plain characters."""
    return rb"[\[{]%b(?:(?:%b)%b)*+[\]}]" % (_PLAIN, inside, _PLAIN)


# Whole values of two levels are passed over at once; deeper brackets are counted one by one.
_SHALLOW = _STRING + b"|" + _pair(_STRING + b"|" + _pair(_STRING))
_NESTED = re.compile(rb"%b(?:(?:%b)%b)*+" % (_PLAIN, _SHALLOW, _PLAIN), re.DOTALL)
_OUTER = re.compile(rb'[^"\[\]{},]*+(?:(?:%b)[^"\[\]{},]*+)*+' % _SHALLOW, re.DOTALL)

_QUOTE, _COMMA, _BACKSLASH, _END = b'",\\]'
_OPENING, _CLOSING = b"[{", b"]}"


class ElementScan:
    """Reads an array's inside once, however it is cut into chunks.

    It trusts brackets and quotes only; whether an element is sound JSON is the parser's to say.
    """

    def __init__(self) -> None:
        self.position = 0  #: everything in the buffer before it is read
        self.closed: int | None = None  #: where the array's own closing bracket is
        self._depth = 0
        self._in_string = False

    def drop(self, count: int) -> None:
        """The buffer lost its first *count* bytes, all of which had been read."""
        self.position -= count

    def separators(self, buffer: bytes | bytearray) -> Iterator[int]:
        """Where the commas between elements are, from ``position`` to the end of *buffer*."""
        while self.closed is None and self._skip(buffer):
            byte = buffer[self.position]
            if byte == _COMMA:
                yield self.position
            elif byte in _OPENING:
                self._depth += 1
            elif byte in _CLOSING and self._depth:
                self._depth -= 1
            elif byte == _END:
                self.closed = self.position
            elif byte == _QUOTE:
                self._in_string = True
            self.position += 1

    def _skip(self, buffer: bytes | bytearray) -> bool:
        """Go to the next byte that matters; False when the buffer ends before it."""
        size = len(buffer)
        if self._in_string:
            self.position = _end(_STRING_REST, buffer, self.position)
            if self.position == size or buffer[self.position] == _BACKSLASH:
                return False
            self._in_string = False
            self.position += 1
        self.position = _end(_NESTED if self._depth else _OUTER, buffer, self.position)
        return self.position < size


def _end(pattern: re.Pattern[bytes], buffer: bytes | bytearray, start: int) -> int:
    match = pattern.match(buffer, start)
    return match.end() if match else start
