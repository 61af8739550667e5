"""``/session``: a token becomes a cookie, so that a browser's images and players can show it."""

from __future__ import annotations

import time
from dataclasses import dataclass

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from labelport.catalog import Catalog, tokens
from labelport.errors import NotFound
from labelport.model import AccessToken, TokenKind
from labelport_proxy.bodies import read_body
from labelport_proxy.catalog_threads import CatalogThreads
from labelport_proxy.exchange import exchange_of
from labelport_proxy.identifying import (
    COOKIE,
    Identities,
    Identity,
    bearer,
    session_secret,
    unknown,
)
from labelport_proxy.limits import Limits
from labelport_proxy.refusing import bad_request

_MAX_BODY = 64 << 10


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    token: str


@dataclass(frozen=True)
class Sessions:
    """Cookie sessions. They are rows of the catalog: ending one ends it everywhere."""

    catalog: Catalog
    writing: CatalogThreads
    identities: Identities
    limits: Limits
    seconds: int  #: how long one lives at most
    secure: bool  #: whether browsers send the cookie over HTTPS only

    async def session(self, request: Request) -> Response:
        """Begin one, or end it."""
        return await (self.begin(request) if request.method == "POST" else self.end(request))

    async def begin(self, request: Request) -> Response:
        """``POST``: log in by an ``Authorization`` header, or by ``{"token": "…"}``.

        Only JSON: a form of a foreign page could log a browser in as somebody else.
        """
        given = await self._token(request)
        login = await self.identities.of_token(given, request.scope.get("client"))
        exchange = exchange_of(request.scope)
        exchange.user, exchange.outcome = login.user.id, "session"
        self.limits.count(login.user.id)
        token, secret = await self.writing.call(self._create, login, given)
        expires_at = token.expires_at or token.created_at  # sessions do expire
        body = {"user": login.user.email, "expires_at": expires_at.isoformat()}
        response = JSONResponse(body, 201, {"cache-control": "no-store"})
        response.set_cookie(
            COOKIE,
            secret,
            max_age=round((expires_at - token.created_at).total_seconds()),
            path="/",
            secure=self.secure,
            httponly=True,
            samesite="lax",
        )
        return response

    async def _token(self, request: Request) -> str:
        authorization = request.headers.get("authorization")
        if authorization is not None:
            return bearer(authorization.encode("latin-1"))
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise bad_request('Send Authorization: Bearer …, or {"token": "…"} as JSON.')
        try:
            return msgspec.json.decode(await read_body(request, _MAX_BODY), type=_Body).token
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise bad_request('The body is not {"token": "…"}.') from None

    def _create(self, login: Identity, given: str) -> tuple[AccessToken, str]:
        """A session that ends with what it is begun with. Raises `Refusal`."""
        left = self.seconds if login.ends is None else login.ends - time.time()
        if left <= 0:
            raise unknown()  # the issuer's clock and ours differ
        with self.catalog.begin() as connection:
            tokens.prune(connection)
            found = None
            if login.ends is None:
                found = tokens.user_of(connection, given, TokenKind.API)
                if found is None:
                    raise unknown()  # revoked a moment ago, and still remembered
            try:
                return tokens.create(
                    connection,
                    login.user.id,
                    name="browser",
                    kind=TokenKind.SESSION,
                    seconds=min(self.seconds, left),
                    parent=found[1] if found else None,
                )
            except NotFound:
                raise unknown() from None

    async def end(self, request: Request) -> Response:
        """``DELETE``: log out. It is no error not to be logged in."""
        exchange_of(request.scope).outcome = "session"
        secret = session_secret(dict(request.scope["headers"]))
        if secret and await self.identities.of_session(secret, request.scope.get("client")):
            await self.writing.call(self._revoke, secret)
            self.identities.forget_session(secret)
        response = Response(status_code=204)
        response.delete_cookie(COOKIE, path="/", secure=self.secure, httponly=True, samesite="lax")
        return response

    def _revoke(self, secret: str) -> None:
        with self.catalog.begin() as connection:
            tokens.revoke_secret(connection, secret, TokenKind.SESSION)
