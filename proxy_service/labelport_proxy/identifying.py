"""Who is asking: a token, a JWT, a cookie session or a signed link → a user of the catalog."""

from __future__ import annotations

import time
from collections.abc import Mapping
from hashlib import sha256
from typing import NamedTuple

from starlette.requests import cookie_parser

from labelport import links, resolving
from labelport.catalog import Catalog, tokens, users
from labelport.model import TokenKind, User
from labelport.resolving import Kind
from labelport_proxy.caching import Kept
from labelport_proxy.catalog_threads import CatalogThreads
from labelport_proxy.oidc import Issuer
from labelport_proxy.refusing import Refusal, forbidden, unauthenticated

COOKIE = "labelport_session"
_MOST = 20_000  # identities that are kept
_LONGEST = 16 << 10  # characters of a token


class Link(NamedTuple):
    """What makes a signed link."""

    user_id: int
    expires: int  #: Unix seconds
    signature: str

    @classmethod
    def of_query(cls, query: Mapping[str, str]) -> Link | None:
        """The link's part of a query; None if it has none. Raises `Refusal`."""
        if "signature" not in query:
            return None
        try:
            return cls(int(query["user"]), int(query["expires"]), query["signature"])
        except (KeyError, ValueError):
            raise forbidden("The link is damaged.") from None


class Login(NamedTuple):
    """Who logs in."""

    user: User
    ends: float | None  #: Unix seconds at which the JWT ends; None: it is an API token


class Identities:
    """Tells who is asking. What a token comes to is used again for *seconds*."""

    def __init__(
        self,
        catalog: Catalog,
        reading: CatalogThreads,
        secret: str,
        issuer: Issuer | None,
        *,
        seconds: float,
    ) -> None:
        self._catalog = catalog
        self._reading = reading
        self._secret = secret
        self._issuer = issuer
        self._seconds = seconds
        self._known: Kept[bytes, User] = Kept(_MOST)

    def known(self, headers: Mapping[bytes, bytes]) -> User | None:
        """The user whom `of_headers` found by the same header a moment ago."""
        given = headers.get(b"authorization")
        if given is not None:
            return self._known.get(_digest(bearer(given), TokenKind.API))
        secret = session_secret(headers)
        return self._known.get(_digest(secret, TokenKind.SESSION)) if secret else None

    async def of_headers(self, headers: Mapping[bytes, bytes]) -> User | None:
        """The user of an ``Authorization`` header, else of the session's cookie; None: neither.

        A cookie that has expired is none. Raises `Refusal` for a header that is no good.
        """
        if b"authorization" in headers:
            return await self.of_authorization(headers[b"authorization"])
        secret = session_secret(headers)
        return await self._of_secret(secret, TokenKind.SESSION) if secret else None

    async def of_authorization(self, header: bytes) -> User:
        """The user of an ``Authorization`` header. Raises `Refusal`."""
        return await self.of_token(bearer(header))

    async def of_token(self, secret: str) -> User:
        """The user of an API token or of the issuer's JWT. Raises `Refusal`."""
        if len(secret) <= _LONGEST:
            if self._issuer and _is_jwt(secret):
                user = await self._of_jwt(self._issuer, secret)
            else:
                user = await self._of_secret(secret, TokenKind.API)
            if user is not None:
                return user
        raise unknown()

    async def login(self, secret: str) -> Login:
        """Who logs in by an API token or the issuer's JWT. Raises `Refusal`.

        A JWT is looked at anew, and an API token must be: what begins now outlasts what is
        remembered.
        """
        if not self._issuer or not _is_jwt(secret) or len(secret) > _LONGEST:
            return Login(await self.of_token(secret), None)
        claims = await self._issuer.verified(secret)
        user = await self._reading.call(self._by_email, claims.email)
        if user is None:
            raise unknown()
        return Login(user, claims.expires)

    def of_link(self, link: Link, kind: Kind, number: int, uri: str) -> int:
        """The id of the user a signed link was made for. Raises `Refusal`.

        Whether the user may still have anything is the directory's to tell.
        """
        user_id, expires, signature = link
        path = resolving.proxy_path(kind, number)
        if not links.verify(self._secret, path, uri, user_id, expires, signature, now=time.time()):
            raise forbidden("The link is damaged or has expired.")
        return user_id

    async def _of_secret(self, secret: str, kind: TokenKind) -> User | None:
        digest = _digest(secret, kind)
        user = self._known.get(digest)
        if user is None:
            user = await self._reading.call(self._look_up, secret, kind)
            if user is not None:
                self._known.put(digest, user, self._seconds)
        return user

    def _look_up(self, secret: str, kind: TokenKind) -> User | None:
        with self._catalog.read() as connection:
            found = tokens.user_of(connection, secret, kind)
        if found is None:
            return None
        user, token = found
        if tokens.untouched(token):  # or every look would wait for whoever writes
            with self._catalog.begin() as connection:
                tokens.touch(connection, token.id)
        return user

    async def _of_jwt(self, issuer: Issuer, text: str) -> User | None:
        digest = _digest(text, TokenKind.API)
        user = self._known.get(digest)
        if user is None:
            claims = await issuer.verified(text)
            user = await self._reading.call(self._by_email, claims.email)
            if user is not None:
                left = claims.expires - time.time()
                self._known.put(digest, user, min(self._seconds, left))
        return user

    def _by_email(self, email: str) -> User | None:
        with self._catalog.read() as connection:
            user = users.find(connection, email)
        return user if user and user.active else None

    def forget_session(self, secret: str) -> None:
        """A session has ended: do not take it from memory."""
        self._known.drop(_digest(secret, TokenKind.SESSION))


def bearer(header: bytes) -> str:
    """The token in an ``Authorization`` header. Raises `Refusal`."""
    scheme, _, secret = header.decode("latin-1").strip().partition(" ")
    if scheme.lower() not in ("bearer", "token"):
        raise unauthenticated("Use Authorization: Bearer, or Token.")
    return secret.strip()


def unknown() -> Refusal:
    """A token lets nobody in, or does no more."""
    return unauthenticated("The token is unknown or has expired.")


def _is_jwt(secret: str) -> bool:
    return secret.count(".") == 2


def _digest(secret: str, kind: TokenKind) -> bytes:
    """What a secret is remembered by. A token is never taken for a session."""
    return sha256(f"{kind} {secret}".encode(errors="replace")).digest()


def session_secret(headers: Mapping[bytes, bytes]) -> str | None:
    """The secret in the session's cookie."""
    text = headers.get(b"cookie", b"").decode("latin-1")
    # Not the standard library's: its parser stops at the first cookie that it does not like.
    return cookie_parser(text).get(COOKIE) if COOKIE in text else None
