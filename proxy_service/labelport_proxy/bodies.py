"""Request bodies, read whole and never more of them than is allowed."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect, Request

from labelport_proxy.refusing import Refusal

_BODY_SECONDS = 60.0  # for all of it, however slowly it comes


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The whole body. Raises `Refusal` for a longer one, and when it takes too long."""
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > max_bytes:
                    raise Refusal(413, "too_large", f"The body has more than {max_bytes} bytes.")
    except ClientDisconnect:
        raise Refusal(400, "bad_request", "The body ended early.") from None
    except TimeoutError:
        detail = f"The body did not come within {_BODY_SECONDS:g} s."
        raise Refusal(408, "too_slow", detail, {"Connection": "close"}) from None
    return bytes(body)
