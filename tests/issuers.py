"""An OpenID Connect issuer on loopback: a discovery document, keys, and tokens signed by them."""

from __future__ import annotations

import json
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

AUDIENCE = "labelport"


class Key:
    """A key that an issuer signs with."""

    def __init__(self, kid: str, algorithm: str) -> None:
        self.kid = kid
        self.algorithm = algorithm
        self.private: Any = (
            ec.generate_private_key(ec.SECP256R1())
            if algorithm == "ES256"
            else rsa.generate_private_key(public_exponent=65537, key_size=2048)
        )

    @property
    def published(self) -> dict[str, str]:
        """The public half, as a JWK."""
        kind: Any = ECAlgorithm if self.algorithm == "ES256" else RSAAlgorithm
        found = json.loads(kind.to_jwk(self.private.public_key()))
        return {**found, "kid": self.kid, "alg": self.algorithm, "use": "sig"}

    def sign(self, claims: dict[str, Any], **header: Any) -> str:
        """A JWT of *claims*."""
        headers = {"kid": self.kid, **header}
        return jwt.encode(claims, self.private, self.algorithm, headers=headers)


class OidcIssuer:
    """What an issuer publishes, and how often it was asked for its keys."""

    def __init__(self, url: str, keys: Sequence[Key]) -> None:
        self.url = url
        self.keys = list(keys)
        self.asked = 0
        self.works = True

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Good claims of Ann, but for *changes*; what is None is left out."""
        now = int(time.time())
        good = {
            **{"iss": self.url, "aud": AUDIENCE, "sub": "1", "email": "ann@example.org"},
            **{"email_verified": True, "iat": now, "exp": now + 600, **changes},
        }
        return {name: value for name, value in good.items() if value is not None}

    def token(self, **changes: Any) -> str:
        """A token that the first key signed."""
        return self.keys[0].sign(self.claims(**changes))

    def answer(self, path: str) -> dict[str, Any] | None:
        if not self.works:
            return None
        if path == "/.well-known/openid-configuration":
            return {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}
        if path == "/keys":
            self.asked += 1
            return {"keys": [key.published for key in self.keys]}
        return None


@contextmanager
def oidc_issuer(*keys: Key) -> Iterator[OidcIssuer]:
    """An issuer, which answers 503 when it does not work."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = issuer.answer(self.path)
            body = json.dumps(found).encode()
            self.send_response(503 if found is None else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        issuer = OidcIssuer(f"http://127.0.0.1:{server.server_port}", keys)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield issuer
        finally:
            server.shutdown()
            thread.join()


def forged(header: dict[str, Any], claims: dict[str, Any], signature: bytes = b"") -> str:
    """A token of any parts."""
    parts = (json.dumps(header).encode(), json.dumps(claims).encode(), signature)
    return ".".join(urlsafe_b64encode(part).decode().rstrip("=") for part in parts)
