"""An answer over HTTP, whichever client got it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from labelport.stores._dialect import Request


class Response(Protocol):
    """The head of an answer, and its body while that comes in. Whoever got it releases it."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]:
        """By name, in any case."""
        ...

    async def chunk(self) -> bytes:
        """The next bytes of the body; empty at its end. Raises `Busy` when it breaks off."""
        ...

    def release(self) -> None:
        """Give the connection back: kept when all has been read, else closed. Once is enough."""
        ...


class Sender(Protocol):
    """Sends requests as they are: nothing is followed, decoded or normalised."""

    async def send(self, request: Request, uri: str) -> Response:
        """The answer, once its head is there; *uri* is for messages.

        Raises:
            Busy: there is none, which may pass.
            ConfigurationError: there can be none.
        """
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


async def whole(response: Response, max_bytes: int) -> bytes:
    """The body, up to *max_bytes*; the rest is not read."""
    chunks = []
    missing = max_bytes
    try:
        while missing and (chunk := await response.chunk()):
            chunks.append(chunk[:missing])
            missing -= len(chunks[-1])
    finally:
        response.release()
    return b"".join(chunks)


async def drained(response: Response) -> Mapping[str, str]:
    """The headers, once the body has been read away."""
    await whole(response, 64 << 10)
    return response.headers


async def still_open(response: Response) -> Response:
    """The response itself: its consumer streams and releases it."""
    return response
