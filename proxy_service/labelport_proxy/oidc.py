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
_RETRY_SECONDS = 10.0  # how soon an unknown key, or a failure, may cause another question
_FETCH_SECONDS = 10.0


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
        self._tried_at = float("-inf")
        self._lock = asyncio.Lock()

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
        now = self._clock()
        if kid not in self._keys or now - self._fetched_at > _KEYS_SECONDS:
            await self._fetch()
        if kid in self._keys:
            return self._keys[kid]
        if kid is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        raise jwt.InvalidTokenError("its key is not the issuer's")

    async def _fetch(self) -> None:
        """Ask for the issuer's keys, unless that was just done. Raises `Refusal` without any."""
        async with self._lock:
            if self._clock() - self._tried_at >= _RETRY_SECONDS:
                self._tried_at = self._clock()
                await self._learn()
        if not self._keys:
            raise Refusal(503, "issuer_unavailable", "The issuer of the token does not answer.")

    async def _learn(self) -> None:
        """Learn the issuer's keys; what was known stays when it does not answer."""
        try:
            keys = jwt.PyJWKSet.from_dict(await self._published())
        except (aiohttp.ClientError, TimeoutError, ValueError, jwt.PyJWTError) as error:
            log.error("the keys of %s cannot be read: %s", self._issuer, error)
            return
        self._keys = {key.key_id: key for key in keys.keys}
        self._fetched_at = self._clock()

    async def _published(self) -> dict[str, Any]:
        timeout = aiohttp.ClientTimeout(total=_FETCH_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout) as session:
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
