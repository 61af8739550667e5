"""AWS Signature Version 4 in the query string, as botocore's presigned URLs have it."""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from hashlib import sha256
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
    scope = f"{moment[:8]}/{region}/s3/aws4_request"
    signed = {name.lower(): " ".join(value.split()) for name, value in headers.items()}
    signed["host"] = origin.partition("://")[2]
    names = ";".join(sorted(signed))
    parameters = [
        *query,
        ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
        ("X-Amz-Credential", f"{credentials.access_key_id}/{scope}"),
        ("X-Amz-Date", moment),
        ("X-Amz-Expires", str(seconds)),
        ("X-Amz-SignedHeaders", names),
    ]
    if credentials.session_token:
        parameters.append(("X-Amz-Security-Token", credentials.session_token))
    pairs = [f"{_quoted(name)}={_quoted(value)}" for name, value in parameters]
    lines = "".join(f"{name}:{signed[name]}\n" for name in sorted(signed))
    # Sorted by name, then value: "=" must not take part.
    in_order = "&".join(sorted(pairs, key=_name_and_value))
    canonical = "\n".join((method, path, in_order, lines, names, "UNSIGNED-PAYLOAD"))
    to_sign = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{sha256(canonical.encode()).hexdigest()}"
    key = _signing_key(credentials.secret_access_key, moment[:8], region)
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    return f"{origin}{path}?{'&'.join(pairs)}&X-Amz-Signature={signature}"


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
