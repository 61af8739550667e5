"""uvicorn, with connections that an application can drop."""

from __future__ import annotations

import asyncio
import socket

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

#: The extension of ASGI's scope that holds the connection's transport.
TRANSPORT = "labelport.transport"

#: What the kernel may hold for one client, set before the server starts; 0: as it likes.
socket_buffer = 0

_WRITE_BUFFER = 16 << 10  # beside what the kernel holds
_HEAD_SECONDS = 30.0  # for a whole request head, however slowly it comes


class Protocol(HttpToolsProtocol):
    """One client's connection.

    A server that only closes connections waits for the client to read first: one that never does
    would be kept for ever. So the application is given the transport, to abort.
    """

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=_WRITE_BUFFER)
        raw = transport.get_extra_info("socket")
        if socket_buffer and raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, socket_buffer)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._have_head()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {TRANSPORT: {"transport": self.transport}}
        self._await_head()

    def on_headers_complete(self) -> None:
        self._have_head()
        super().on_headers_complete()

    def _await_head(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(_HEAD_SECONDS, self.transport.abort)

    def _have_head(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
