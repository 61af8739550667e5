"""Who beside our own pages may read an answer: CORS, and where it may be embedded."""

from __future__ import annotations

from collections.abc import Collection

from labelport_proxy.exchange import Exchange
from labelport_proxy.fields import NONE, Fields, fields

#: What scripts may see of an answer; a player needs them to seek.
_EXPOSED = b"accept-ranges, content-length, content-range, etag, retry-after, x-request-id"
#: What they may send beside what any page may.
_ALLOWED = b"authorization, content-type, range, if-range, if-none-match, if-match"
_VARY = b"Cookie, Authorization, Origin"
_BY_ORIGIN = fields((b"vary", b"Origin"))
_PREFLIGHT = fields(
    (b"access-control-allow-methods", b"GET, HEAD, POST, DELETE"),
    (b"access-control-allow-headers", _ALLOWED),
    (b"access-control-max-age", b"600"),
)


class CrossOrigin:
    """The rules for the origins that an operator named."""

    def __init__(self, origins: Collection[str]) -> None:
        self._origins = frozenset(origin.encode() for origin in origins)
        # The cookie is not sent to us from other sites; from other hosts of this one it is.
        own = b"same-site" if self._origins else b"same-origin"
        self._members, self._anybody = (
            fields((b"cross-origin-resource-policy", policy), (b"vary", _VARY))
            for policy in (own, b"cross-origin")
        )

    def fields(self, *, is_link: bool) -> Fields:
        """What an object's answer says. Only signed links may be embedded by everybody."""
        return self._anybody if is_link else self._members

    def readers(self, origin: bytes | None) -> Fields:
        """What lets the scripts of the origin that asks read any answer, if it may."""
        if origin not in self._origins or origin is None:
            return NONE
        return fields(
            (b"access-control-allow-origin", origin),
            (b"access-control-allow-credentials", b"true"),
            (b"access-control-expose-headers", _EXPOSED),
        )

    async def preflight(self, exchange: Exchange) -> None:
        """Answer an OPTIONS request."""
        exchange.outcome = "preflight"
        await exchange.begin(204, [_BY_ORIGIN, _PREFLIGHT] if exchange.readers else [_BY_ORIGIN])
