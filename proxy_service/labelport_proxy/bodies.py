"""Request bodies, read whole and never more of them than is allowed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from starlette.requests import ClientDisconnect, Request

from labelport_proxy.refusing import Refusal

_BODY_SECONDS = 60.0  # for all of it, however slowly it comes
_LARGE = 256 << 10  # bytes, from which on a body needs a place
_PLACES = 4


class Bodies:
    """Reads bodies of any size: of large ones only a few at once, while the others wait."""

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(_PLACES)

    @asynccontextmanager
    async def read(self, request: Request, max_bytes: int) -> AsyncIterator[bytes]:
        """The whole body, which has its place for as long as it is used. Raises `Refusal`."""
        async with AsyncExitStack() as place:

            async def take() -> None:
                await place.enter_async_context(self._places)

            yield await read_body(request, max_bytes, take)


async def read_body(
    request: Request, max_bytes: int, when_large: Callable[[], Awaitable[None]] | None = None
) -> bytes:
    """The whole body. Raises `Refusal` for a longer one, and when it takes too long.

    :param when_large: awaited before more than a little is read
    """
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > max_bytes:
                    raise Refusal(413, "too_large", f"The body has more than {max_bytes} bytes.")
                if when_large is not None and len(body) > _LARGE:
                    await when_large()
                    when_large = None
    except ClientDisconnect:
        raise Refusal(400, "bad_request", "The body ended early.") from None
    except TimeoutError:
        detail = f"The body did not come within {_BODY_SECONDS:g} s."
        raise Refusal(408, "too_slow", detail, {"Connection": "close"}) from None
    return bytes(body)
