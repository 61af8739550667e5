"""A store's server that misbehaves as it is told, and a client that sees exactly what comes of it.

The server runs in a thread, for proxies that run in threads or processes of their own.
"""

from __future__ import annotations

import asyncio
import http.client
import itertools
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from loopback import Answer, Heard, hear


@dataclass
class Upstream:
    """A server in a thread. Each key has its own answers."""

    url: str = ""
    heard: dict[str, list[Heard]] = field(default_factory=dict)  #: by key
    _answers: dict[str, deque[Answer]] = field(default_factory=dict)
    _keys: Iterator[int] = field(default_factory=itertools.count)
    _open: set[asyncio.StreamWriter] = field(default_factory=set)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def will(self, *answers: Answer) -> str:
        """A new key whose requests get *answers* in turn, and the last of them from then on."""
        key = f"object-{next(self._keys)}.bin"
        self._answers[key] = deque(answers)
        self.heard[key] = []
        return key

    def left_alone(self, seconds: float = 5) -> bool:
        """Whether all connections are closed, or are within *seconds*."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._open, seconds)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with self._changed:
            self._open.add(writer)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                while not writer.transport.is_closing():
                    await self._answer(await hear(reader), writer)
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
            with self._changed:
                self._open.discard(writer)
                self._changed.notify_all()

    async def _answer(self, heard: Heard, writer: asyncio.StreamWriter) -> None:
        key = heard.target.partition("?")[0].rpartition("/")[2]
        self.heard[key].append(heard)
        answers = self._answers[key]
        await (answers.popleft() if len(answers) > 1 else answers[0])(writer)
        await writer.drain()


class _Talk(asyncio.StreamReaderProtocol):
    """A client that has closed its side has left."""

    def eof_received(self) -> bool:
        super().eof_received()
        return False


@contextmanager
def upstream_server() -> Iterator[Upstream]:
    """An `Upstream` on loopback."""
    upstream, ready = Upstream(), threading.Event()
    loop = asyncio.new_event_loop()
    over = asyncio.Event()

    def talk() -> asyncio.Protocol:
        return _Talk(asyncio.StreamReader(loop=loop), upstream._serve, loop)

    async def run() -> None:
        async with await loop.create_server(talk, "127.0.0.1", 0) as listener:
            upstream.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
            ready.set()
            await over.wait()
        talks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in talks:
            task.cancel()
        await asyncio.gather(*talks, return_exceptions=True)

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),), daemon=True)
    thread.start()
    assert ready.wait(10), "the server did not start"
    try:
        yield upstream
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(10)
        loop.close()


def raw(*pieces: bytes, then: Answer | None = None) -> Answer:
    """An answer of exactly these bytes; *then* something happens."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(b"".join(pieces))
        await writer.drain()
        if then:
            await then(writer)

    return answer


async def close(writer: asyncio.StreamWriter) -> None:
    """End the connection in good order."""
    writer.close()


def drip(
    piece: bytes, count: int, seconds: float
) -> Callable[[asyncio.StreamWriter], Awaitable[None]]:
    """Send *piece* again and again, and wait before each."""

    async def dripping(writer: asyncio.StreamWriter) -> None:
        for _ in range(count):
            await asyncio.sleep(seconds)
            if writer.transport.is_closing():
                return
            writer.write(piece)
            await writer.drain()

    return dripping


@dataclass(frozen=True)
class Got:
    """What a client got, however it ended."""

    status: int
    headers: Mapping[str, str]  #: names in lower case
    body: bytes
    whole: bool  #: the body ended where the head had said


def ask(
    url: str,
    target: str,
    headers: Mapping[str, str],
    *,
    method: str = "GET",
    source: str | None = None,
) -> Got:
    """One request on a connection of its own, read to whatever end it comes to.

    :param source: the address to ask from
    """
    place = urlsplit(url)
    connection = http.client.HTTPConnection(
        place.hostname or "", place.port, timeout=30, source_address=source and (source, 0)
    )
    try:
        connection.request(method, target, headers=dict(headers))
        answer = connection.getresponse()
        fields = {name.lower(): value for name, value in answer.getheaders()}
        body = bytearray()
        try:
            while piece := answer.read1(1 << 16):
                body += piece
            # Of an early end, `read1` makes no more than an end.
            whole = not answer.length
        except ConnectionResetError:
            whole = False
        return Got(answer.status, fields, bytes(body), whole)
    finally:
        connection.close()
