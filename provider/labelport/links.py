"""Signed links: proxy URLs for one user and one object, good until they expire. Pure.

A signature says who asked for what and until when, and nothing of whether that user may still see
it: the proxy checks this at each request.
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64encode

from labelport.resolving import Kind, proxy_path, proxy_url

#: A shorter secret could be guessed from one link.
MIN_SECRET_LENGTH = 32  # characters


def sign(secret: str, path: str, uri: str, user_id: int, expires: int) -> str:
    """The signature of a link, base64url without padding.

    :param path: below the proxy's base URL, as `proxy_path` gives it: it names the task or project.
    :param expires: Unix seconds; from then on the link is void.
    """
    fields = (b"labelport link", *(str(field).encode() for field in (path, uri, user_id, expires)))
    # Each with its length, so that no two links have the same bytes.
    message = b"".join(b"%d:%b" % (len(field), field) for field in fields)
    digest = hmac.digest(secret.encode(), message, "sha256")
    return urlsafe_b64encode(digest).decode().rstrip("=")


def verify(
    secret: str, path: str, uri: str, user_id: int, expires: int, signature: str, *, now: float
) -> bool:
    """Whether `sign` gave this signature and the link still holds at *now*, in Unix seconds."""
    expected = sign(secret, path, uri, user_id, expires)
    genuine = hmac.compare_digest(expected.encode(), signature.encode(errors="replace"))
    return genuine and now < expires


def signed_url(
    base: str, kind: Kind, number: int, uri: str, *, secret: str, user_id: int, expires: int
) -> str:
    """The proxy URL of *uri* that needs no login: whoever holds it acts as this user.

    :param expires: Unix seconds; from then on the link is void.
    """
    signature = sign(secret, proxy_path(kind, number), uri, user_id, expires)
    url = proxy_url(base, kind, number, uri)
    return f"{url}&user={user_id}&expires={expires}&signature={signature}"
