"""A server on loopback that answers as it is told: slowly, wrongly, partly or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import parse_qsl


@dataclass(frozen=True)
class Heard:
    """A request as it came in."""

    method: str
    target: str  #: path and query, as sent
    headers: Mapping[str, str]  #: names in lower case
    body: bytes

    @property
    def query(self) -> dict[str, str]:
        """The decoded query."""
        return dict(parse_qsl(self.target.partition("?")[2], keep_blank_values=True))


Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Loopback:
    """What the server listens on and what it heard."""

    url: str = ""
    heard: list[Heard] = field(default_factory=list)


@asynccontextmanager
async def loopback(answers: Iterable[Answer]) -> AsyncIterator[Loopback]:
    """Serve *answers* in turn, one for each request, on connections that are not kept.

    A request too many is answered by closing the connection.
    """
    server = Loopback()
    script = iter(answers)
    talks: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            server.heard.append(await hear(reader))
            if answer := next(script, None):
                await answer(writer)
            writer.close()
            await writer.wait_closed()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talks[asyncio.create_task(serve(reader, writer))] = writer

    listener = await asyncio.start_server(accept, "127.0.0.1", 0)
    async with listener:
        server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        yield server
        for writer in talks.values():
            writer.transport.abort()
        await asyncio.gather(*talks)


async def hear(reader: asyncio.StreamReader) -> Heard:
    """Read one request."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.strip().split("\r\n")
    method, target, _ = first.split(" ")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Heard(method, target, headers, body)


def reply(
    status: int,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    *,
    sent: int | None = None,
    then: Callable[[asyncio.StreamWriter], Awaitable[None]] | None = None,
) -> Answer:
    """An answer of which only *sent* bytes of the body go out; *then* something happens."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        fields = {"Content-Length": str(len(body)), "Connection": "close", **(headers or {})}
        lines = [f"HTTP/1.1 {status} Whatever", *(f"{n}: {v}" for n, v in fields.items() if v)]
        writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body[:sent])
        await writer.drain()
        if then:
            await then(writer)

    return answer


async def reset(writer: asyncio.StreamWriter) -> None:
    """Break the connection."""
    writer.transport.abort()


async def stall(writer: asyncio.StreamWriter) -> None:
    """Send nothing more for as long as the client stays."""
    while not writer.transport.is_closing():  # noqa: ASYNC110 # a transport has no event
        await asyncio.sleep(0.01)
