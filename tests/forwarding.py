"""A forwarder of TCP connections that can freeze: what is sent to it arrives, and nothing goes on.

So does a server that hangs, or a firewall that forgets a connection: its peer hears of nothing.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Forwarder:
    """Listens on ``port``; made by `forwarder`."""

    def __init__(self, host: str, port: int) -> None:
        self.port = 0
        self._place = host, port
        self._flowing = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._over = asyncio.Event()

    def freeze(self) -> None:
        """From now on nothing goes either way."""
        self._loop.call_soon_threadsafe(self._flowing.clear)

    def thaw(self) -> None:
        """What has waited goes on."""
        self._loop.call_soon_threadsafe(self._flowing.set)

    async def serve(self, listening: threading.Event) -> None:
        self._flowing.set()
        talks: set[asyncio.Task[None]] = set()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            talks.add(asyncio.create_task(self._talk(reader, writer)))

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        async with server:
            self.port = server.sockets[0].getsockname()[1]
            listening.set()
            await self._over.wait()
            for talk in talks:
                talk.cancel()
            await asyncio.gather(*talks, return_exceptions=True)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._flowing.wait()
        back, forth = await asyncio.open_connection(*self._place)
        try:
            await asyncio.gather(self._pump(reader, forth), self._pump(back, writer))
        finally:
            for end in (writer, forth):
                end.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
            writer.close()

    def run(self, listening: threading.Event) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self.serve(listening))

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._over.set)


@contextmanager
def forwarder(host: str, port: int) -> Iterator[Forwarder]:
    """One to *host* and *port*, in a thread of its own."""
    made, listening = Forwarder(host, port), threading.Event()
    thread = threading.Thread(target=made.run, args=(listening,), daemon=True)
    thread.start()
    try:
        assert listening.wait(10)
        yield made
    finally:
        made.end()
        thread.join(10)
