"""A quick guess at the comma between two elements of an array."""

from __future__ import annotations

import re

_FIRST_KEY = re.compile(rb'\s*(\{\s*"(?:[^"\\]|\\.)*+"\s*:\s*)([^\s])', re.DOTALL)
_KIND = bytes.maketrans(b"123456789-f", b"0000000000t")
_BLANKS = 64
_TRIES = 1_000


class Seam:
    """How elements begin: the same blanks, first key and kind of value as the one looked at."""

    def __init__(self) -> None:
        self._beginning = b""
        self._kind = b""

    def learn(self, buffer: bytes | bytearray) -> None:
        """Look at the element that *buffer* begins with."""
        match = _FIRST_KEY.match(buffer)
        self._beginning, self._kind = match.groups() if match else (b"", b"")

    def last(self, buffer: bytes | bytearray) -> int | None:
        """The last comma in *buffer* before what looks like an element; None without any."""
        if not self._beginning:
            self.learn(buffer)
        if not self._beginning:
            return None
        at = len(buffer)
        for _ in range(_TRIES):
            at = buffer.rfind(self._beginning, 0, at)
            if at <= 0:
                return None
            before = buffer[max(at - _BLANKS, 0) : at].rstrip()
            if before.endswith(b",") and self._same_kind(buffer, at + len(self._beginning)):
                return buffer.rindex(b",", 0, at)
        return None

    def _same_kind(self, buffer: bytes | bytearray, at: int) -> bool:
        return buffer[at : at + 1].translate(_KIND) == self._kind.translate(_KIND)
