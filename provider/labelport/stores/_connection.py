"""One HTTP/1.1 connection: a request, its answer, and then perhaps the next request."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from typing import cast

from labelport.errors import StoreTimeout
from labelport.stores._head import Counted, Framing, Head, parse_head
from labelport.stores._retrying import Busy
from labelport.stores.transport import Transport

MAX_HEAD_BYTES = 64 << 10
#: As much of a body nobody wants is thrown away to keep a connection.
MAX_DISCARDED_BYTES = 64 << 10


class Dropped(Busy):
    """The connection was closed before any byte of an answer came."""


class Connection(asyncio.BufferedProtocol):
    """Errors that `ask` and `chunk` raise have closed the connection.

    :param buffer: what is received into; all connections of a loop may share it, for each
        empties it at once.
    :param lost: called when the connection is no more.
    """

    head: Head  #: of the answer, once `ask` has returned
    _transport: asyncio.Transport

    def __init__(
        self, buffer: bytearray, settings: Transport, lost: Callable[[Connection], None]
    ) -> None:
        self._idle_since = 0.0
        self._bytes = buffer
        self._buffer = memoryview(buffer)
        self._settings = settings
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._method = ""
        self._heard = b""  # of a head that is not complete
        self._framing: Framing | None = Counted(0)  # None: a head comes first
        self._pieces: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._paused = False
        self._failure: Busy | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = 0.0
        self._wanted, self._seconds = "", 0.0

    @property
    def alive(self) -> bool:
        """Whether another request can be sent, as far as we know."""
        return self._failure is None

    @property
    def idle_seconds(self) -> float:
        """For how long nothing has been asked, once the first answer is settled."""
        return self._loop.time() - self._idle_since

    async def ask(self, method: str, request: bytes) -> None:
        """Send a request and wait for the head of its answer.

        Raises:
            Dropped: the peer had closed the connection, or did so now.
            Busy: there is no answer, or none that is HTTP.
        """
        self._method, self._heard = method, b""
        self._framing = None
        self._transport.write(request)
        try:
            while self._framing is None:
                await self._event("answer", self._settings.head_seconds)
        except BaseException:
            self.close()  # cancelled, even when the answer has come in the meantime
            raise

    async def chunk(self) -> bytes:
        """The next bytes of the body; empty at its end. Raises `Busy` when it breaks off."""
        while not self._pieces:
            if self._framing is not None and self._framing.over:
                return b""
            await self._event("byte", self._settings.read_seconds)
        piece = self._pieces.popleft()
        self._waiting_bytes -= len(piece)
        if self._paused and not self._pieces:
            self._paused = False
            self._transport.resume_reading()
        return piece

    def settle(self) -> bool:
        """Be done with the answer. Whether the connection can carry another request."""
        if (
            self._framing is None
            or not self._framing.over
            or self._waiting_bytes > MAX_DISCARDED_BYTES
            or not self.head.kept
            or not self.alive
        ):
            return False
        self._pieces.clear()
        self._waiting_bytes = 0
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        self._idle_since = self._loop.time()
        return True

    def close(self) -> None:
        """Close at once, whatever is under way."""
        self._fail(Busy("the connection was closed"))

    async def _event(self, wanted: str, seconds: float) -> None:
        """Wait until something has come. Raises what the connection failed of, once it has."""
        if self._failure is not None:
            raise self._failure
        self._wanted, self._seconds = wanted, seconds
        self._deadline = self._loop.time() + seconds
        if self._timer is None or self._timer.when() > self._deadline:
            self._watch()
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _watch(self) -> None:
        """Look at the deadline when it passes; it may have moved on by then."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._deadline, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._waiter is None:
            return
        if self._loop.time() < self._deadline:
            self._watch()
        else:
            self._fail(Busy(f"no {self._wanted} within {self._seconds:g} s", StoreTimeout))

    def _fail(self, failure: Busy) -> None:
        """Close, and let whoever waits know why; only the first reason counts."""
        if self._failure is None:
            self._failure = failure
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._transport.abort()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Both loops have set TCP_NODELAY."""
        self._transport = cast(asyncio.Transport, transport)
        if self._settings.receive_bytes:
            transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_RCVBUF, self._settings.receive_bytes
            )

    def get_buffer(self, sizehint: int) -> memoryview:
        """The shared buffer."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take what has come out of the shared buffer."""
        position = 0
        try:
            while self._framing is None and position < nbytes:
                position = self._take_head(position, nbytes)
            if self._framing is not None:
                self._take_body(self._framing, bytes(self._buffer[position:nbytes]))
        except ValueError:
            self._fail(Busy("the answer is not HTTP"))

    def _take_head(self, start: int, stop: int) -> int:
        """Read a head in ``start <= byte < stop`` of the buffer, if it is complete; its end."""
        heard = len(self._heard)
        if heard:  # the rest of it
            data = self._heard + bytes(self._buffer[start:stop])
            end = data.find(b"\r\n\r\n", max(0, heard - 3))
        else:
            end = self._bytes.find(b"\r\n\r\n", start, stop) - start
            data = bytes(self._buffer[start : stop if end < 0 else start + end + 2])
        if (len(data) if end < 0 else end) > MAX_HEAD_BYTES:
            raise ValueError("a head without end")
        if end < 0:
            self._heard = data
            return stop
        self._heard = b""
        head = parse_head(data[: end + 2])
        if head.status >= 200:  # or that was only an interim answer
            self._framing = head.framing(self._method)
            self.head = head
            self._wake()
        return start + end + 4 - heard

    def _take_body(self, framing: Framing, data: bytes) -> None:
        piece = framing.take(data)
        if piece:
            self._pieces.append(piece)
            self._waiting_bytes += len(piece)
            if self._waiting_bytes > self._settings.chunk_bytes and not self._paused:
                self._paused = True
                self._transport.pause_reading()
        if framing.surplus:
            self._fail(Busy("more came than was asked for"))
        elif piece or framing.over:
            self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits for more."""
        silent = self._framing is None and not self._heard
        if self._framing is not None and self._framing.ends_with_connection and exc is None:
            self._framing.over = True
        reason = f"the connection failed ({type(exc).__name__})" if exc else "it ended early"
        self._fail(Dropped(reason) if silent else Busy(reason))
        self._lost(self)
