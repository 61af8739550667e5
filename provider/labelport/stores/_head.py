"""The head of an HTTP/1.1 answer and the way its body ends, read strictly (RFC 9112)."""

from __future__ import annotations

import re
from typing import NamedTuple, Protocol

from multidict import CIMultiDict

_TEXT = r"[^\x00-\x08\x0a-\x1f\x7f]*"
_STATUS_LINE = re.compile(rf"HTTP/1\.([01]) ([1-5][0-9]{{2}})(?: {_TEXT})?\r\n")
_FIELD = re.compile(rf"^([!#$%&'*+.^_`|~0-9A-Za-z-]++):[ \t]*+({_TEXT}+)\r\n", re.MULTILINE)
_LENGTH = re.compile(r"[0-9]{1,18}")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?")

#: Fields that must not differ from themselves: they decide where the body ends.
_SINGLE = ("Content-Length", "Transfer-Encoding")

#: Of a line between the chunks of a body.
_MAX_LINE_BYTES = 4096


class Framing(Protocol):
    """Where a body ends."""

    over: bool  #: all of the body has come
    surplus: bool  #: and more than that
    ends_with_connection: bool

    def take(self, data: bytes) -> bytes:
        """The bytes of the body in what came next. Raises `ValueError` when it is garbled."""
        ...


class Counted:
    """A body of a declared length."""

    ends_with_connection = False

    def __init__(self, length: int) -> None:
        self._left = length
        self.over = not length
        self.surplus = False

    def take(self, data: bytes) -> bytes:
        """See `Framing.take`."""
        piece = data[: self._left]
        self._left -= len(piece)
        self.over = not self._left
        self.surplus = len(piece) < len(data)
        return piece


class Chunked:
    """A body in chunks that tell their own length, as S3 words its refusals and listings."""

    ends_with_connection = False

    def __init__(self) -> None:
        self.over = self.surplus = False
        self._rest = b""
        self._left = 0  # of the current chunk
        self._after_chunk = False  # the empty line that ends a chunk comes next
        self._trailing = False  # lines that nobody asked for, up to an empty one

    def take(self, data: bytes) -> bytes:
        """See `Framing.take`."""
        rest, body = self._rest + data, []
        while rest and not self.over:
            if self._left:
                body.append(rest[: self._left])
                rest = rest[self._left :]
                self._left -= len(body[-1])
                continue
            line, ended, after = rest.partition(b"\r\n")
            if len(line) > _MAX_LINE_BYTES:
                raise ValueError("a line without end")
            if not ended:
                break
            rest = after
            self._read_line(line)
        self._rest, self.surplus = (b"", bool(rest)) if self.over else (rest, False)
        return b"".join(body)

    def _read_line(self, line: bytes) -> None:
        if self._trailing:
            self.over = not line
        elif self._after_chunk:
            if line:
                raise ValueError("a chunk longer than it says")
            self._after_chunk = False
        else:
            size = _CHUNK_SIZE.fullmatch(line)
            if size is None:
                raise ValueError("no size of a chunk")
            self._left = int(size[1], 16)
            self._after_chunk = bool(self._left)
            self._trailing = not self._left


class Unbounded:
    """A body that ends with the connection: whether it is whole, only its reader can tell."""

    ends_with_connection = True
    over = surplus = False

    def take(self, data: bytes) -> bytes:
        """See `Framing.take`."""
        return data


class Head(NamedTuple):
    """The head of an answer."""

    status: int
    headers: CIMultiDict[str]
    kept: bool  #: whether the connection may be used again

    def framing(self, method: str) -> Framing:
        """How the body of this answer to *method* ends. Raises `ValueError` when it is unclear."""
        if method == "HEAD" or self.status in (204, 304):
            return Counted(0)
        length = self.headers.get("Content-Length")
        coding = self.headers.get("Transfer-Encoding")
        if coding is not None:
            if coding.lower() != "chunked" or length is not None:
                raise ValueError("another coding, or two ends")
            return Chunked()
        if length is None:
            return Unbounded()
        if not _LENGTH.fullmatch(length):
            raise ValueError("no length")
        return Counted(int(length))


def parse_head(head: bytes) -> Head:
    """Read a head, its final empty line left out. Raises `ValueError` when it is none."""
    text = head.decode("latin-1")
    first = _STATUS_LINE.match(text)
    fields = _FIELD.findall(text, first.end()) if first else []
    # Each line is the first, or one of those found.
    if first is None or text.count("\n") != len(fields) + 1:
        raise ValueError("no head of an HTTP answer")
    if " \r" in text or "\t\r" in text:
        fields = [(name, value.rstrip(" \t")) for name, value in fields]
    headers = CIMultiDict(fields)
    for name in _SINGLE:
        if name in headers and len(set(headers.getall(name))) > 1:
            raise ValueError(f"two different {name}")
    kept = first[1] == "1" and "close" not in headers.get("Connection", "").lower()
    return Head(int(first[2]), headers, kept)
