"""Request bodies, read whole and never more of them than is allowed."""

from __future__ import annotations

from starlette.requests import ClientDisconnect, Request

from labelport_proxy.refusing import Refusal


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The whole body. Raises `Refusal` for a longer one."""
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > max_bytes:
                raise Refusal(413, "too_large", f"The body has more than {max_bytes} bytes.")
    except ClientDisconnect:
        raise Refusal(400, "bad_request", "The body ended early.") from None
    return bytes(body)
