"""uvicorn, with connections that an application can drop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from labelport_proxy.fields import Fields, fields

#: The extension of ASGI's scope that holds the connection's ``transport``, and ``begin``, see
#: `Protocol.begin`.
CONNECTION = "labelport.connection"

#: What the kernel may hold for one client, set before the server starts; 0: as it likes.
socket_buffer = 0

#: How long what was written may wait for a client that takes none of it, set likewise.
stall_seconds = 10.0

_WRITE_BUFFER = 16 << 10  # bytes, beside what the kernel holds
_LONGEST_HEAD = 4 << 10  # bytes, of what may be a head and not a chunk of a body
_HEAD_SECONDS = 30.0  # for a whole request head, however slowly it comes
_MOST_WAITING = 16  # requests that a client sends without waiting for answers
_LONGEST_REQUEST_HEAD = 64 << 10  # bytes, besides what comes at once


_remembered = lru_cache(maxsize=8)(fields)  # uvicorn's own are the same for a second


class Joining(asyncio.Transport):
    """A transport that sends the head of an answer together with what follows at once.

    Two writes are two system calls, and wake the client twice.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._held: bytes | None = None
        for name in (
            *("abort", "get_extra_info", "get_write_buffer_size", "is_closing", "pause_reading"),
            *("resume_reading", "set_protocol", "set_write_buffer_limits"),
        ):
            setattr(self, name, getattr(transport, name))

    def write(self, data: bytes) -> None:  # type: ignore[override]
        """Send *data*, or hold it until the next write or the loop's next turn."""
        held, self._held = self._held, None
        if held is not None:
            self._transport.writelines((held, data) if data else (held,))
        elif len(data) > _LONGEST_HEAD:
            self._transport.write(data)
        elif data:
            self._held = data
            self._loop.call_soon(self._send_held)

    def writelines(self, list_of_data: Iterable[bytes]) -> None:  # type: ignore[override]
        """Send all of it, behind what is held."""
        self._send_held()
        self._transport.writelines(list_of_data)

    def close(self) -> None:
        """Send what is held, and close."""
        self._send_held()
        self._transport.close()

    def _send_held(self) -> None:
        held, self._held = self._held, None
        if held is not None and not self._transport.is_closing():
            self._transport.write(held)


class Protocol(HttpToolsProtocol):
    """One client's connection.

    A server that only closes connections waits for the client to read first: one that never does
    would be kept for ever. So the application is given the transport, to abort; and what nobody
    streams any more, or waits to be sent behind what is not read, is looked after here.
    """

    _extensions: dict[str, dict[object, object]]
    _cycles: Sequence[RequestResponseCycle] = ()  #: requests without their whole answer
    _due: float | None = None  #: by the loop's clock, when the next request must be here
    _missed: Callable[[], None]  #: what then happens, if it is not
    _clock: asyncio.TimerHandle | None = None  #: goes off then, or earlier
    _begun = False  #: something of the next request has come
    _look: asyncio.TimerHandle | None = None  #: at whether the client has taken something
    _moves = 0  #: the buffer has been filled or emptied so often
    _fruitless = 0  #: bytes received since a head, a part of a body or a request was complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(Joining(transport, self.loop))
        # Of all requests: one that held itself would be garbage that only a collection finds.
        self._extensions = {CONNECTION: {"transport": self.transport, "begin": self.begin}}
        transport.set_write_buffer_limits(high=_WRITE_BUFFER)
        raw = transport.get_extra_info("socket")
        if socket_buffer and raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, socket_buffer)
        self._expect(_HEAD_SECONDS, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._clock, self._look):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)
        self._extensions = {}
        # uvicorn tells the latest request only; it may be queued behind one that is answered now.
        for cycle in self._cycles:
            if not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()

    def data_received(self, data: bytes) -> None:
        self._fruitless += len(data)
        super().data_received(data)
        if self._fruitless > _LONGEST_REQUEST_HEAD:
            self._refuse_head()
            return
        if not self._begun and not self._busy:
            self._begun = True
            self._expect(_HEAD_SECONDS, self.transport.abort)

    def on_body(self, body: bytes) -> None:
        self._fruitless = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._fruitless = 0
        super().on_message_complete()

    def on_headers_complete(self) -> None:
        self._fruitless = 0
        self._begun, self._due = False, None
        if len(self.pipeline) >= _MOST_WAITING:
            self.transport.abort()
            raise ConnectionAbortedError  # so that nothing more of it is parsed
        super().on_headers_complete()
        self.scope["extensions"] = self._extensions
        waiting = [earlier for earlier in self._cycles if not earlier.response_complete]
        self._cycles = (*waiting, self.cycle)

    def begin(
        self,
        scope: Scope,
        status: int,
        lines: Fields,
        body: bytes,
        left: int,
    ) -> bool:
        """Send the head of an answer with the first bytes of its body, or with all of it.

        It is what uvicorn makes of two messages, in less than half of the time. The rest of the
        body goes its way.

        :param scope: of the request
        :param lines: with ``content-length`` and no other framing
        :param left: how many bytes of the body are to follow

        False: uvicorn has to do it, for instance because the client must read first.
        """
        for cycle in self._cycles:  # nearly always there is but this one
            if cycle.scope is scope:
                break
        else:
            return False
        if cycle.disconnected or self.flow.write_paused:
            return cycle.disconnected
        end = b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n"
        default = _remembered(*self.server_state.default_headers)
        head = b"".join((STATUS_LINE[status], default, lines, end))
        cycle.response_started = True
        cycle.waiting_for_100_continue = False
        cycle.chunked_encoding = False
        cycle.expected_content_length = left
        self.transport.writelines((head, body) if body else (head,))
        if not left:
            cycle.response_complete = True
            cycle.message_event.set()
            if not cycle.keep_alive:
                self.transport.close()
            cycle.on_response()
        return True

    @property
    def _busy(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _expect(self, seconds: float, missed: Callable[[], None]) -> None:
        """Wait so long for the next request. One timer serves many of them."""
        self._due, self._missed = self.loop.time() + seconds, missed
        if self._clock is None or self._clock.when() > self._due:
            self._set_clock(self._due)

    def _set_clock(self, due: float) -> None:
        if self._clock is not None:
            self._clock.cancel()
        self._clock = self.loop.call_at(due, self._look_at_clock)

    def _look_at_clock(self) -> None:
        self._clock = None
        if self._due is not None and self.loop.time() < self._due:
            self._set_clock(self._due)
        elif self._due is not None:
            self._missed()

    def _refuse_head(self) -> None:
        """Take no more of a head, or of what follows a body, that does not end."""
        if not self._busy and not self.transport.is_closing():
            self.send_400_response("The request's head is too long.")
        else:
            self.transport.abort()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._await_reader()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._moves += 1

    def on_response_complete(self) -> None:
        """As uvicorn has it, but for its timer, which any byte ends even if no request comes.

        Nor is more read while requests wait.
        """
        self.server_state.total_requests += 1
        self._await_reader()
        if self.transport.is_closing():
            return
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self.flow.resume_reading()
            self._expect(self.timeout_keep_alive, self.transport.close)

    def _await_reader(self) -> None:
        """Look again later. Until then nothing is written, or `_moves` tells of it."""
        self._moves += 1
        waiting = self.transport.get_write_buffer_size()
        if waiting and self._look is None:
            self._look = self.loop.call_later(stall_seconds, self._look_at, waiting, self._moves)

    def _look_at(self, waiting: int, moves: int) -> None:
        self._look = None
        if (waiting, moves) == (self.transport.get_write_buffer_size(), self._moves):
            self.transport.abort()
        elif self.flow.write_paused or not self._busy:
            self._await_reader()
