"""Where a bucket is: the origin and the path that its URLs begin with."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from labelport.errors import ConfigurationError

#: Bucket names that a host name can begin with, without a dot: the certificate covers one label.
_LABEL = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_NO_ENDPOINT = "the endpoint of S3 must be a URL such as https://minio.example:9000"


class Addressing(StrEnum):
    """Where a URL names the bucket: in its path or in front of its host.

    ``auto`` chooses as botocore does: the path for endpoints of one's own and for buckets whose
    name has a dot or is no host name.
    """

    AUTO = "auto"
    PATH = "path"
    VIRTUAL = "virtual"


class Place(NamedTuple):
    """What the URLs of one bucket begin with."""

    origin: str  #: ``https://host``, with the port when it is not the default
    path: str  #: percent-encoded, without a final slash; may be empty


def place_of(bucket: str, region: str, endpoint: str | None, addressing: Addressing) -> Place:
    """Find where *bucket* is.

    Raises:
        ConfigurationError: *endpoint* is no HTTP URL, or the bucket has no name.
    """
    if not bucket or "/" in bucket:
        raise ConfigurationError(f"{bucket!r} is not the name of a bucket")
    in_path = addressing is Addressing.PATH or (
        addressing is Addressing.AUTO and (endpoint is not None or not _LABEL.fullmatch(bucket))
    )
    try:
        url = urlsplit(endpoint if endpoint is not None else amazon_endpoint(region))
        port = url.port
    except ValueError:
        raise ConfigurationError(_NO_ENDPOINT) from None
    if url.scheme not in _DEFAULT_PORTS or not url.hostname or url.username or url.query:
        raise ConfigurationError(_NO_ENDPOINT)
    host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
    if port and port != _DEFAULT_PORTS[url.scheme]:
        host += f":{port}"
    base = url.path.rstrip("/")
    if in_path:
        return Place(f"{url.scheme}://{host}", f"{base}/{quote(bucket, safe='')}")
    return Place(f"{url.scheme}://{bucket}.{host}", base)


def amazon_endpoint(region: str) -> str:
    """Amazon's own endpoint in a region."""
    suffix = ".cn" if region.startswith("cn-") else ""
    return f"https://s3.{region}.amazonaws.com{suffix}"
