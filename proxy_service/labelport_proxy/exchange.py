"""One request and its answer, as far as they have come."""

from __future__ import annotations

import time
from collections.abc import Sequence

from starlette.types import Message, Scope, Send

from labelport_proxy.fields import NONE, Fields, pairs_of
from labelport_proxy.server import CONNECTION

_KEY = "labelport.exchange"


class Exchange:
    """What is known of a request, and the way of its answer."""

    __slots__ = (
        *("begun", "bytes", "error", "first_byte", "headers", "outcome", "readers", "request_id"),
        *("scope", "status", "user", "_begin", "_send"),
    )

    def __init__(self, scope: Scope, headers: dict[bytes, bytes], send: Send, request_id: str):
        self.begun = time.perf_counter()
        self.scope = scope
        self.headers = headers  #: of the request; of those sent in several lines, the last
        self.request_id = request_id
        self.user: int | None = None
        self.status: int | None = None  #: None: nothing was answered
        self.outcome = ""
        self.error: str | None = None  #: the class of what a store did wrong, or why we cut off
        self.first_byte: float | None = None  #: seconds after the request
        self.bytes = 0  #: of the body
        self.readers = NONE  #: lets scripts of another origin read the answer
        self._send = send
        connection = scope.get("extensions", {}).get(CONNECTION)
        self._begin = connection["begin"] if connection else None
        scope[_KEY] = self  # until `close`, for then they hold each other

    def close(self) -> None:
        """The request is over."""
        del self.scope[_KEY]

    async def begin(
        self, status: int, parts: Sequence[Fields], body: bytes = b"", left: int = 0
    ) -> None:
        """Send the head of an answer, and the first bytes of its body.

        :param parts: of the head, with the length of the body; nothing else tells where it ends
        :param left: how many bytes of the body are to follow
        """
        lines = self._lines(status, parts)
        self.bytes = len(body)
        if self._begin is not None and self._begin(self.scope, status, lines, body, left):
            return
        headers = pairs_of(lines)
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body, "more_body": left > 0})

    async def go_on(self, body: bytes, left: int) -> None:
        """Send more of the body, after which *left* bytes are to follow."""
        self.bytes += len(body)
        await self._send({"type": "http.response.body", "body": body, "more_body": left > 0})

    async def send(self, message: Message) -> None:
        """ASGI's own way, which Starlette takes."""
        if message["type"] == "http.response.start":
            lines = self._lines(message["status"], ())
            message["headers"] = [*message["headers"], *pairs_of(lines)]
        else:
            self.bytes += len(message.get("body", b""))
        await self._send(message)

    def _lines(self, status: int, parts: Sequence[Fields]) -> Fields:
        """All of the head but its first line, now that it is sent."""
        self.status = status
        self.first_byte = time.perf_counter() - self.begun
        own = b"x-request-id: %b\r\n" % self.request_id.encode()  # of `_REQUEST_ID`'s kind
        return Fields(b"".join((*parts, own, self.readers)))


def exchange_of(scope: Scope) -> Exchange:
    """The exchange that a request is part of."""
    found: Exchange = scope[_KEY]
    return found
