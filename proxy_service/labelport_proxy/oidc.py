"""JWTs of one OpenID Connect issuer, verified by the keys it publishes."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import aiohttp
import jwt

from labelport_proxy.refusing import Refusal, unauthenticated

log = logging.getLogger(__name__)

#: Public keys only: with a shared secret, whoever knows the issuer's public key could sign.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA")

_KEYS_SECONDS = 3600.0  # how long keys are used before they are asked for again
_RETRY_SECONDS = 10.0  # after which an unknown key, or a failure, may cause another question
_FETCH_SECONDS = 10.0
_PATIENCE_SECONDS = 2.0  # how long who shows a known but old key waits for newer ones


class Claims(NamedTuple):
    """What a verified token says."""

    email: str
    expires: float  #: Unix seconds


class Issuer:
    """Verifies the tokens of one issuer for one audience."""

    def __init__(
        self,
        issuer: str,
        audience: str,
        *,
        jwks_url: str,
        email_claim: str,
        leeway: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._issuer = issuer
        self._audience = audience
        self._jwks_url = jwks_url
        self._email_claim = email_claim
        self._leeway = leeway
        self._clock = clock
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._fetched_at = float("-inf")
        self._asked_at = float("-inf")  # the end of the last question
        self._asking: asyncio.Task[None] | None = None

    async def verified(self, token: str) -> Claims:
        """What *token* says. Raises `Refusal` unless it is the issuer's, for us, and good now."""
        try:
            header = jwt.get_unverified_header(token)
            key = await self._key(header.get("kid"))
            claims = jwt.decode(
                token,
                key,
                algorithms=ALGORITHMS,
                audience=self._audience,
                issuer=self._issuer,
                leeway=self._leeway,
                options={"require": ["exp", "iss", "aud"]},
            )
            email = claims.get(self._email_claim)
        except jwt.InvalidTokenError as error:
            raise unauthenticated(f"The JWT is not accepted: {error}.") from None
        # Some issuers write their booleans as text.
        verified = claims.get("email_verified", True) in (True, "true")
        if not isinstance(email, str) or not verified:
            raise unauthenticated(f"The JWT has no verified {self._email_claim}.")
        return Claims(email, float(claims["exp"]))

    async def _key(self, kid: str | None) -> jwt.PyJWK:
        """The key of this id. Raises `Refusal` while none at all are known."""
        key = self._known(kid)
        grown_old = self._fetched_at + _KEYS_SECONDS
        if key is None:
            await self._ask(None)
        elif self._clock() > grown_old:
            # It may be withdrawn by now; but an issuer that did not say so is not waited for again.
            await self._ask(0 if self._asked_at > grown_old else _PATIENCE_SECONDS)
        key = self._known(kid)
        if key is not None:
            return key
        if not self._keys:
            raise Refusal(503, "issuer_unavailable", "The issuer of the token does not answer.")
        raise jwt.InvalidTokenError("its key is not the issuer's")

    def _known(self, kid: str | None) -> jwt.PyJWK | None:
        if kid is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(kid)

    async def _ask(self, seconds: float | None) -> None:
        """Ask for the issuer's keys, unless that was just done, and wait so long at most.

        Whoever comes meanwhile waits for the same answer.
        """
        if self._asking is None and self._clock() - self._asked_at >= _RETRY_SECONDS:
            self._asking = asyncio.create_task(self._learn())
        if self._asking is not None and seconds != 0:
            await asyncio.wait([self._asking], timeout=seconds)

    async def _learn(self) -> None:
        """Learn the issuer's keys; what was known stays when it does not answer."""
        try:
            async with asyncio.timeout(_FETCH_SECONDS):
                keys = jwt.PyJWKSet.from_dict(await self._published())
        except (aiohttp.ClientError, TimeoutError, ValueError, jwt.PyJWTError) as error:
            what = str(error) or type(error).__name__
            log.error("the keys of %s cannot be read: %s", self._issuer, what)
        else:
            self._keys = {key.key_id: key for key in keys.keys}
            self._fetched_at = self._clock()
        finally:
            self._asked_at = self._clock()
            self._asking = None

    async def _published(self) -> dict[str, Any]:
        async with aiohttp.ClientSession() as session:
            url = self._jwks_url
            if not url:
                place = self._issuer.rstrip("/") + "/.well-known/openid-configuration"
                url = str((await _json(session, place)).get("jwks_uri"))
            return await _json(session, url)


async def _json(session: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    async with session.get(url, allow_redirects=False) as response:
        response.raise_for_status()
        found = json.loads(await response.read())
    if not isinstance(found, dict):
        raise ValueError("not a JSON object")
    return found
