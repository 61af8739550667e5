"""Who is asking: a token, a JWT, a cookie session or a signed link → a user of the catalog."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from hashlib import sha256
from ipaddress import IPv6Address, ip_address
from typing import NamedTuple

from starlette.requests import cookie_parser

from labelport import links, resolving
from labelport.catalog import Catalog, tokens, users
from labelport.model import TokenKind, User
from labelport.resolving import Kind
from labelport_proxy.caching import Kept
from labelport_proxy.catalog_threads import CatalogThreads
from labelport_proxy.limits import Rate
from labelport_proxy.oidc import Issuer
from labelport_proxy.refusing import Refusal, forbidden, unauthenticated
from labelport_proxy.token_owners import TokenOwners

COOKIE = "labelport_session"
_MOST = 20_000  # identities that are kept
_LONGEST_ADDRESS = 64  # characters
_LONGEST = 16 << 10  # characters of a JWT
_PROVEN_SECONDS = 3600.0  # for so long, who was let in need not fear for failures of others
_BRAKE_SECONDS = 0.25  # or whoever asks again at once would keep us busy with refusing

#: Where a request comes from, as ASGI says it.
Client = tuple[str, int] | None
Look = Callable[[], Awaitable["Identity | None"]]


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


class Identity(NamedTuple):
    """Who shows a token or a session."""

    user: User
    ends: float | None  #: Unix seconds at which a JWT ends; None: the catalog says when


class Identities:
    """Tells who is asking. What a token comes to is used again for *seconds*.

    An address, `Client`, from which too many come who are nobody is refused to ask for more.
    """

    def __init__(
        self,
        catalog: Catalog,
        reading: CatalogThreads,
        owners: TokenOwners,
        secret: str,
        issuer: Issuer | None,
        *,
        seconds: float,
        failures_per_second: float,
    ) -> None:
        self._catalog = catalog
        self._reading = reading
        self._owners = owners
        self._secret = secret
        self._issuer = issuer
        self._seconds = seconds
        self._known: Kept[bytes, User] = Kept(_MOST)
        self._proven: Kept[bytes, bool] = Kept(_MOST)
        self._failures: Rate[str] = Rate(failures_per_second)

    def known(self, headers: Mapping[bytes, bytes]) -> User | None:
        """The user whom `of_headers` found by the same header a moment ago."""
        given = headers.get(b"authorization")
        if given is not None:
            return self._known.get(_digest(bearer(given), TokenKind.API))
        secret = session_secret(headers)
        return self._known.get(_digest(secret, TokenKind.SESSION)) if secret else None

    async def of_headers(self, headers: Mapping[bytes, bytes], client: Client) -> User | None:
        """The user of an ``Authorization`` header, else of the session's cookie; None: neither.

        A cookie that has expired is none. Raises `Refusal` for a header that is no good.
        """
        if b"authorization" in headers:
            return await self.of_authorization(headers[b"authorization"], client)
        secret = session_secret(headers)
        return await self.of_session(secret, client) if secret else None

    async def of_authorization(self, header: bytes, client: Client) -> User:
        """The user of an ``Authorization`` header. Raises `Refusal`."""
        secret = bearer(header)
        known = self._known.get(_digest(secret, TokenKind.API))
        return known or (await self.of_token(secret, client)).user

    async def of_token(self, secret: str, client: Client) -> Identity:
        """Who shows an API token or the issuer's JWT, asked anew. Raises `Refusal`."""
        look: Look
        if self._issuer and secret.count(".") == 2 and len(secret) <= _LONGEST:
            look = partial(self._by_jwt, self._issuer, secret)
        elif tokens.is_secret(secret):
            look = partial(self._by_secret, secret, TokenKind.API)
        else:
            raise unknown()
        found = await self._learn(_digest(secret, TokenKind.API), client, look)
        if found is None:
            raise unknown()
        return found

    async def of_session(self, secret: str, client: Client) -> User | None:
        """The user of a cookie session. Raises `Refusal` for who asks too often."""
        digest = _digest(secret, TokenKind.SESSION)
        known = self._known.get(digest)
        if known is not None or not tokens.is_secret(secret):
            return known
        look = partial(self._by_secret, secret, TokenKind.SESSION)
        found = await self._learn(digest, client, look)
        return found.user if found else None

    def of_link(self, link: Link, kind: Kind, number: int, uri: str) -> int:
        """The id of the user a signed link was made for. Raises `Refusal`.

        Whether the user may still have anything is the directory's to tell.
        """
        user_id, expires, signature = link
        path = resolving.proxy_path(kind, number)
        if not links.verify(self._secret, path, uri, user_id, expires, signature, now=time.time()):
            raise forbidden("The link is damaged or has expired.")
        return user_id

    async def _learn(self, digest: bytes, client: Client, look: Look) -> Identity | None:
        """Who that is, by *look*, to be used again. Raises `Refusal`."""
        address = _address(client)
        if self._proven.get(digest) is None:  # others of the address do not keep it out
            await self._require_few_failures(address)
        begun = time.monotonic()
        try:
            found = await look()
        except Refusal as refusal:
            if refusal.status == 401:
                self._fail(digest, address)
            raise
        if found is None:
            self._fail(digest, address)
            return None
        left = self._seconds if found.ends is None else found.ends - time.time()
        # From before the catalog was asked: what changed since is not in its answer.
        taken = time.monotonic() - begun
        self._known.put(digest, found.user, min(self._seconds - taken, left))
        self._proven.put(digest, True, _PROVEN_SECONDS)
        return found

    def _fail(self, digest: bytes, address: str) -> None:
        self._known.drop(digest)
        self._proven.drop(digest)
        self._failures.count(address)

    async def _require_few_failures(self, address: str) -> None:
        """Raise `Refusal` for an address of too many, which has to wait for it."""
        try:
            self._failures.require(address)
        except Refusal:
            await asyncio.sleep(_BRAKE_SECONDS)
            raise

    async def _by_secret(self, secret: str, kind: TokenKind) -> Identity | None:
        user = await self._owners.find(secret, kind)
        return Identity(user, None) if user else None

    async def _by_jwt(self, issuer: Issuer, text: str) -> Identity | None:
        claims = await issuer.verified(text)
        user = await self._reading.call(self._by_email, claims.email)
        return Identity(user, claims.expires) if user else None

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


def _address(client: Client) -> str:
    """Where failures are counted: an IPv6 client has a whole network of addresses."""
    host = client[0] if client else ""
    try:
        address = ip_address(host)
    except ValueError:
        return host[:_LONGEST_ADDRESS]  # a Unix socket has none, a reverse proxy may say anything
    if isinstance(address, IPv6Address) and address.ipv4_mapped is None:
        return address.exploded[:19]
    return host


def _digest(secret: str, kind: TokenKind) -> bytes:
    """What a secret is remembered by. A token is never taken for a session."""
    return sha256(f"{kind} {secret}".encode(errors="replace")).digest()


def session_secret(headers: Mapping[bytes, bytes]) -> str | None:
    """The secret in the session's cookie."""
    text = headers.get(b"cookie", b"").decode("latin-1")
    # Not the standard library's: its parser stops at the first cookie that it does not like.
    return cookie_parser(text).get(COOKIE) if COOKIE in text else None
