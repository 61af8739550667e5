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
_PLACE_SECONDS = 5.0  # to wait for one


class Bodies:
    """Reads bodies of any size: of large ones only a few at once, while the others wait."""

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(_PLACES)

    @asynccontextmanager
    async def read(self, request: Request, max_bytes: int) -> AsyncIterator[bytes]:
        """The whole body, which has its place for as long as it is used.

        Raises `Refusal`, also when no place comes free in time.
        """
        async with AsyncExitStack() as place:

            async def take() -> None:
                try:
                    async with asyncio.timeout(_PLACE_SECONDS):
                        await place.enter_async_context(self._places)
                except TimeoutError:
                    after = {"Retry-After": f"{_PLACE_SECONDS:g}"}
                    detail = "Too many large bodies are being read."
                    raise Refusal(503, "overloaded", detail, after) from None

            yield await read_body(request, max_bytes, take)


async def read_body(
    request: Request, max_bytes: int, when_large: Callable[[], Awaitable[None]] | None = None
) -> bytes:
    """The whole body. Raises `Refusal` for a longer one, and when it takes too long.

    :param when_large: awaited before more than a little is read; that time is not the sender's
    """
    body = bytearray()
    now = asyncio.get_running_loop().time
    try:
        async with asyncio.timeout(_BODY_SECONDS) as limit:
            until = now() + _BODY_SECONDS
            async for chunk in request.stream():
                body += chunk
                if len(body) > max_bytes:
                    raise Refusal(413, "too_large", f"The body has more than {max_bytes} bytes.")
                if when_large is not None and len(body) > _LARGE:
                    left = until - now()
                    limit.reschedule(None)
                    await when_large()
                    limit.reschedule(now() + left)
                    when_large = None
    except ClientDisconnect:
        raise Refusal(400, "bad_request", "The body ended early.") from None
    except TimeoutError:
        detail = f"The body did not come within {_BODY_SECONDS:g} s."
        raise Refusal(408, "too_slow", detail, {"Connection": "close"}) from None
    return bytes(body)
