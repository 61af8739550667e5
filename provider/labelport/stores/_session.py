"""Requests over aiohttp: whatever has a body, and everything behind an HTTP proxy."""

from __future__ import annotations

import io

import aiohttp
import yarl

from labelport.errors import ConfigurationError, StoreTimeout, StoreUnavailable
from labelport.stores._dialect import Request
from labelport.stores._retrying import Busy
from labelport.stores.transport import Transport

#: How the network fails. Their texts may hold a signed URL: name the type, chain nothing.
TRANSPORT_ERRORS = (aiohttp.ClientError, OSError, TimeoutError)

#: Bytes a connection holds before it stops reading: chunks are at most about twice this.
READ_BUFFER_BYTES = 256 << 10
#: Slower than this, an upload is taken for stalled.
MIN_UPLOAD_BYTES_PER_SECOND = 32 << 10


class SessionResponse:
    """A `Response` of aiohttp."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self._response = response

    async def chunk(self) -> bytes:
        """See `Response.chunk`."""
        try:
            return await self._response.content.readany()
        except TRANSPORT_ERRORS as failure:
            busy = broken(failure)
        raise busy

    def release(self) -> None:
        """See `Response.release`."""
        self._response.release()


class Session:
    """A `Sender`. Its connections open with the first request, in that event loop."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """See `Sender.close`."""
        if self._session is not None:
            await self._session.close()

    async def send(self, request: Request, uri: str) -> SessionResponse:
        """See `Sender.send`."""
        session = self._session or self._opened()
        try:
            response = await session.request(
                request.method,
                yarl.URL(request.url, encoded=True),
                headers=request.headers,
                # As a file, so that a large body does not go through in one blocking write.
                data=io.BytesIO(request.body) if request.body else None,
                allow_redirects=False,
                timeout=self._timeout(request),
            )
        except aiohttp.ClientConnectorCertificateError as failure:
            reason = f"the certificate of {failure.host} is not trusted"
            error: Exception = ConfigurationError(f"{uri}: {reason}")
        except aiohttp.InvalidURL:
            error = ConfigurationError(f"{uri}: the endpoint is no URL")
        except TRANSPORT_ERRORS as failure:
            error = broken(failure)
        else:
            return SessionResponse(response)
        # Outside of the handlers: the text of aiohttp's errors may hold the signed URL.
        raise error

    def _opened(self) -> aiohttp.ClientSession:
        """The session of all requests, opened in the loop that the first one runs in."""
        transport = self._transport
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=transport.connections, ssl=transport.tls),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            read_bufsize=READ_BUFFER_BYTES,
            proxy=transport.proxy,
            # Compressed on the way, a body has another length and other ranges.
            headers={"Accept-Encoding": "identity", "User-Agent": "labelport"},
            skip_auto_headers=("Content-Type",),
        )
        # It would send a conditional PUT again behind our back, and take the 412 for the answer.
        self._session._retry_connection = False
        return self._session

    def _timeout(self, request: Request) -> aiohttp.ClientTimeout:
        """No total for what may be a long stream; a total for uploads, whose stall nothing sees."""
        total = None
        if request.method != "GET":
            total = 2 * self._transport.read_seconds
            total += len(request.body) / MIN_UPLOAD_BYTES_PER_SECOND
        return aiohttp.ClientTimeout(
            total=total,
            sock_connect=self._transport.connect_seconds,
            sock_read=self._transport.read_seconds,
        )


def broken(failure: Exception) -> Busy:
    """How the network failed, in words that hold no URL."""
    kind = StoreTimeout if isinstance(failure, TimeoutError) else StoreUnavailable
    return Busy(f"the connection failed ({type(failure).__name__})", kind)
