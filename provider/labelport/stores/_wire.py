"""Reading over HTTP/1.1 with as little of Python in between as will do.

For GET and HEAD of objects, where aiohttp takes longer over a small one than its server. The
bytes of a body pass no parser, and they are copied once.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections import deque
from collections.abc import Mapping
from functools import cached_property
from urllib.parse import urlsplit

from labelport.errors import ConfigurationError, StoreError, StoreTimeout
from labelport.stores._connection import Connection, Dropped
from labelport.stores._dialect import Request
from labelport.stores._retrying import Busy
from labelport.stores._slots import Slots
from labelport.stores.transport import Transport

#: Unused for longer, a connection may have been forgotten on the way.
MAX_IDLE_SECONDS = 15.0

#: Of every request. Compressed on the way, a body has another length and other ranges.
_FIELDS = "User-Agent: labelport\r\nAccept-Encoding: identity\r\nConnection: keep-alive"


class Wire:
    """A `Sender` for requests without a body. Its connections all live in one event loop."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._buffer = bytearray(transport.chunk_bytes)
        self._slots = Slots(transport.connections)
        self._open: set[Connection] = set()
        self._idle: dict[str, deque[Connection]] = {}  # by origin, the longest unused first

    async def close(self) -> None:
        """See `Sender.close`."""
        for connection in self._open:
            connection.close()
        await asyncio.sleep(0)  # the loop closes the sockets

    async def send(self, request: Request, uri: str) -> WireResponse:
        """See `Sender.send`."""
        authority_at = request.url.index("://") + 3
        path_at = request.url.index("/", authority_at)
        origin = request.url[:path_at]
        head = encoded(request, request.url[authority_at:path_at], request.url[path_at:], uri)
        if not self._slots.take():
            await self._slot()
        try:
            connection = self._kept(origin)
            if connection is not None:
                try:
                    await connection.ask(request.method, head)
                except Dropped:  # it had been closed meanwhile
                    connection = None
            if connection is None:
                connection = await self._connected(origin, uri)
                await connection.ask(request.method, head)
        except BaseException:
            self._slots.give_back()
            raise
        return WireResponse(self, origin, connection)

    async def _slot(self) -> None:
        """Wait until another connection may be used, no longer than for a new one."""
        seconds = self._transport.connect_seconds
        try:
            await self._slots.wait(seconds)
        except TimeoutError:
            raise Busy(f"no connection was free within {seconds:g} s", StoreTimeout) from None

    def _kept(self, origin: str) -> Connection | None:
        """The connection used last, unless that is too long ago."""
        idle = self._idle.get(origin)
        while idle:
            connection = idle.pop()
            if connection.alive and connection.idle_seconds <= MAX_IDLE_SECONDS:
                return connection
            connection.close()
        return None

    def give_back(self, origin: str, connection: Connection) -> None:
        """Keep a connection for the next request, or close it when it can carry none."""
        self._slots.give_back()
        if not connection.settle():
            connection.close()
            return
        idle = self._idle.setdefault(origin, deque())
        idle.append(connection)
        while idle[0].idle_seconds > MAX_IDLE_SECONDS:
            idle.popleft().close()

    async def _connected(self, origin: str, uri: str) -> Connection:
        """A new connection to the first address that takes one."""
        url = urlsplit(origin)
        host = url.hostname or ""
        port = url.port or (443 if url.scheme == "https" else 80)
        seconds = self._transport.connect_seconds
        error: Exception = Busy(f"{host} has no address")
        try:
            async with asyncio.timeout(seconds):
                for address in await addresses(host, port, uri):
                    try:
                        return await self._connected_to(address, port, url.scheme, host)
                    except OSError as failure:
                        error = unreachable(failure, host, uri)
        except TimeoutError:
            error = Busy(f"no connection within {seconds:g} s", StoreTimeout)
        except (OSError, UnicodeError) as failure:
            error = unreachable(failure, host, uri)
        raise error

    async def _connected_to(self, address: str, port: int, scheme: str, host: str) -> Connection:
        tls = scheme == "https"
        connection = Connection(self._buffer, self._transport, self._open.discard)
        await asyncio.get_running_loop().create_connection(
            lambda: connection,
            address,
            port,
            ssl=self._tls if tls else None,
            server_hostname=host if tls else None,
        )
        self._open.add(connection)
        return connection

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        """Made once: it reads all certificates of the machine."""
        tls = self._transport.tls
        if isinstance(tls, ssl.SSLContext):
            return tls
        context = ssl.create_default_context()
        if not tls:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


class WireResponse:
    """A `Response` that a connection is receiving."""

    def __init__(self, wire: Wire, origin: str, connection: Connection) -> None:
        self.status: int = connection.head.status
        self.headers: Mapping[str, str] = connection.head.headers
        self._wire = wire
        self._origin = origin
        self._connection: Connection | None = connection

    async def chunk(self) -> bytes:
        """See `Response.chunk`."""
        return await self._connection.chunk() if self._connection else b""

    def release(self) -> None:
        """See `Response.release`."""
        if self._connection is not None:
            self._wire.give_back(self._origin, self._connection)
            self._connection = None


async def addresses(host: str, port: int, uri: str) -> list[str]:
    """The addresses of *host*. Raises `ConfigurationError` when one of them is link-local."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    several = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    if any(map(is_link_local, several)):
        raise ConfigurationError(
            f"{uri}: {host} is a link-local address, where clouds keep their machines' "
            "credentials; set another endpoint"
        )
    return several


def is_link_local(address: str) -> bool:
    """Whether an IP address is in 169.254.0.0/16 or fe80::/10, in whatever disguise."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    return ip.is_link_local


def unreachable(failure: Exception, host: str, uri: str) -> Exception:
    """Why there is no connection."""
    if isinstance(failure, ssl.SSLCertVerificationError):
        return ConfigurationError(f"{uri}: the certificate of {host} is not trusted")
    if isinstance(failure, UnicodeError):
        return ConfigurationError(f"{uri}: the endpoint is no URL")
    return Busy(f"the connection failed ({type(failure).__name__})")


def encoded(request: Request, host: str, target: str, uri: str) -> bytes:
    """A request as it is sent. Raises `StoreError` when HTTP would read it as another."""
    fields = "".join([f"\r\n{name}: {value}" for name, value in request.headers.items()])
    text = f"{request.method} {target} HTTP/1.1\r\nHost: {host}\r\n{_FIELDS}{fields}\r\n\r\n"
    lines = 4 + _FIELDS.count("\n") + len(request.headers)
    plain = text.isascii() and text.replace("\r\n", "", lines).isprintable()
    if not plain or " " in target:
        raise StoreError("HTTP carries no control characters and nothing but ASCII", uri=uri)
    return text.encode()
