"""Who beside our own pages may read an answer: CORS, and where it may be embedded."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from starlette.types import Receive, Scope, Send

from labelport_proxy.observing import exchange_of
from labelport_proxy.presenting import Headers

#: What scripts may see of an answer; a player needs them to seek.
_EXPOSED = b"accept-ranges, content-length, content-range, etag, retry-after, x-request-id"
_VARY = b"Cookie, Authorization, Origin"


class CrossOrigin:
    """The rules for the origins that an operator named."""

    def __init__(self, origins: Collection[str]) -> None:
        self._origins = frozenset(origin.encode() for origin in origins)

    def headers(self, request: Mapping[bytes, bytes], *, is_link: bool) -> Headers:
        """What an answer says. Only signed links may be embedded by everybody."""
        allowed = self.readers(request)
        # The cookie is not sent to us from other sites; from other hosts of this one it is.
        own = b"same-site" if self._origins else b"same-origin"
        policy = b"cross-origin" if is_link else own
        return [(b"cross-origin-resource-policy", policy), (b"vary", _VARY), *allowed]

    def readers(self, request: Mapping[bytes, bytes]) -> Headers:
        """What lets the scripts of the origin that asks read any answer, if it may."""
        origin = request.get(b"origin")
        if origin is None or origin not in self._origins:
            return []
        return [
            (b"access-control-allow-origin", origin),
            (b"access-control-allow-credentials", b"true"),
            (b"access-control-expose-headers", _EXPOSED),
        ]

    async def preflight(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer an OPTIONS request."""
        exchange_of(scope).outcome = "preflight"
        allowed = self.readers(dict(scope["headers"]))
        headers = [(b"allow", b"GET, HEAD, OPTIONS"), (b"vary", b"Origin"), *allowed]
        if allowed:
            headers += [
                (b"access-control-allow-methods", b"GET, HEAD"),
                (b"access-control-allow-headers", b"authorization, range, if-range"),
                (b"access-control-max-age", b"600"),
            ]
        await send({"type": "http.response.start", "status": 204, "headers": headers})
        await send({"type": "http.response.body", "body": b""})
