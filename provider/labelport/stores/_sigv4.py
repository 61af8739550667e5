"""AWS Signature Version 4 in the query string, as botocore's presigned URLs have it."""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple
from urllib.parse import quote

from labelport.stores.aws_credentials import AwsCredentials


def presigned(
    method: str,
    origin: str,
    path: str,
    query: Sequence[tuple[str, str]],
    headers: Mapping[str, str],
    *,
    credentials: AwsCredentials,
    region: str,
    seconds: int,
    now: datetime,
) -> str:
    """The signed URL of a request to S3.

    :param origin: ``https://host`` or ``https://host:port``, without a default port.
    :param path: percent-encoded, from the ``/``.
    :param query: neither encoded nor sorted.
    :param headers: all are signed, so they must be sent as they are here; ``host`` is added.
    :param now: UTC.
    """
    # Ten times as fast as strftime, which would take longer than the signature.
    moment = now.isoformat(timespec="seconds")[:19].replace("-", "").replace(":", "") + "Z"
    signed = {name.lower(): " ".join(value.split()) for name, value in headers.items()}
    signed["host"] = origin.partition("://")[2]
    names = sorted(signed)
    lines = "".join([f"{name}:{signed[name]}\n" for name in names])
    frame = _frame(credentials, region, moment, seconds, ";".join(names))
    in_order, in_url = frame.in_order, frame.in_url
    if query:
        pairs = [f"{_quoted(name)}={_quoted(value)}" for name, value in query]
        # Sorted by name, then value: "=" must not take part.
        in_order = "&".join(sorted([*pairs, *in_order.split("&")], key=_name_and_value))
        in_url = "&".join((*pairs, in_url))
    canonical = f"{method}\n{path}\n{in_order}\n{lines}\n{frame.names}\nUNSIGNED-PAYLOAD"
    signature = frame.begun.copy()
    signature.update(sha256(canonical.encode()).hexdigest().encode())
    return f"{origin}{path}?{in_url}&X-Amz-Signature={signature.hexdigest()}"


class _Frame(NamedTuple):
    """What the signatures of one second have in common."""

    names: str  #: of the headers
    in_url: str  #: the query, in botocore's order
    in_order: str  #: the query, in the order that is signed
    begun: hmac.HMAC  #: over all that comes before the request itself


@lru_cache(maxsize=256)
def _frame(
    credentials: AwsCredentials, region: str, moment: str, seconds: int, names: str
) -> _Frame:
    scope = f"{moment[:8]}/{region}/s3/aws4_request"
    parameters = [
        ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
        ("X-Amz-Credential", f"{credentials.access_key_id}/{scope}"),
        ("X-Amz-Date", moment),
        ("X-Amz-Expires", str(seconds)),
        ("X-Amz-SignedHeaders", names),
    ]
    if credentials.session_token:
        parameters.append(("X-Amz-Security-Token", credentials.session_token))
    pairs = [f"{name}={quote(value, safe='')}" for name, value in parameters]
    begun = hmac.new(
        _signing_key(credentials.secret_access_key, moment[:8], region),
        f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n".encode(),
        "sha256",
    )
    return _Frame(names, "&".join(pairs), "&".join(sorted(pairs)), begun)


def _name_and_value(pair: str) -> tuple[str, str]:
    name, _, value = pair.partition("=")
    return name, value


@lru_cache(maxsize=256)
def _quoted(text: str) -> str:
    """Percent-encoded; most of a query is the same from one request to the next."""
    return quote(text, safe="")


@lru_cache(maxsize=64)
def _signing_key(secret: str, day: str, region: str) -> bytes:
    """The key of one day and region: four rounds that are the same for every request."""
    key = b"AWS4" + secret.encode()
    for part in (day, region, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key
