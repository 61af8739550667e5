"""Our signatures are botocore's, bit by bit."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest
from botocore.config import Config

from labelport.errors import ConfigurationError, InvalidKey
from labelport.stores._dialect import ListingQuery
from labelport.stores._s3_endpoint import Addressing, amazon_endpoint
from labelport.stores.aws_credentials import AwsCredentials, FixedCredentials
from labelport.stores.s3 import S3Dialect

KEYS = [
    "plain.json",
    "/lead//double/",
    "a b+c&d=e?f#g%20h%.json",
    'it\'s "q" !*();:@,$[]{}|^~`\\<>',
    "caf\u00e9/cafe\u0301/日本/😀",
    "x/" * 511 + "yz",
]
TOKEN = "IQoJb3JpZ2luX2VjE+a/b==" * 20
PLACES: dict[str, dict[str, Any]] = {
    "amazon": {"region": "eu-west-1"},
    "china": {"region": "cn-north-1"},
    "amazon, path": {"region": "eu-west-1", "addressing": Addressing.PATH},
    "own, port": {"endpoint": "http://127.0.0.1:9000"},
    "own, default port": {"endpoint": "https://minio.example:443/"},
    "own, virtual": {"endpoint": "https://s3.example:8443", "addressing": Addressing.VIRTUAL},
    "own, path": {"endpoint": "https://s3.example", "addressing": Addressing.PATH},
    "own, in a path": {"endpoint": "https://gateway.example/s3/v1"},
    "dotted bucket": {"region": "eu-west-1", "bucket": "a.dotted.bucket"},
}


def pair(
    token: str | None = None, bucket: str = "the-bucket", **place: Any
) -> tuple[Any, dict[str, Any]]:
    """A botocore client, and the arguments of a dialect for the same place."""
    credentials = AwsCredentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCY", token)
    automatic = "path" if place.get("endpoint") or "." in bucket else "virtual"
    style: Any = str(place.get("addressing", automatic))
    client = boto3.client(
        "s3",
        aws_access_key_id=credentials.access_key_id,
        aws_secret_access_key=credentials.secret_access_key,
        aws_session_token=token,
        region_name=place.get("region", "us-east-1"),
        # Left alone, botocore presigns for its global endpoint, which redirects for a while.
        endpoint_url=place.get("endpoint") or amazon_endpoint(str(place["region"])),
        config=Config(
            signature_version="s3v4",
            s3={"addressing_style": style},
            request_checksum_calculation="when_required",
        ),
    )
    return client, {"bucket": bucket, "credentials": FixedCredentials(credentials), **place}


def at_the_time_of(url: str, arguments: dict[str, Any]) -> S3Dialect:
    """A dialect that signs in the second in which botocore signed *url*."""
    (moment,) = parse_qs(urlsplit(url).query)["X-Amz-Date"]
    signed_at = datetime.strptime(moment, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    return S3Dialect(clock=lambda: signed_at, **arguments)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("token", [None, TOKEN], ids=["lasting", "session"])
@pytest.mark.parametrize("place", PLACES)
def test_a_presigned_get_is_botocores(place: str, token: str | None, key: str) -> None:
    client, arguments = pair(token, **PLACES[place])
    wanted = client.generate_presigned_url(
        "get_object",
        {
            "Bucket": arguments["bucket"],
            "Key": key,
            "ResponseContentType": "image/svg+xml; charset=utf-8",
        },
        ExpiresIn=1234,
    )
    client.close()

    signed = at_the_time_of(wanted, arguments).sign(
        key, seconds=1234, content_type="image/svg+xml; charset=utf-8"
    )

    # botocore keeps a default port in the URL, though not in the host that it signs.
    assert asyncio.run(signed) == wanted.replace(":443/", "/")


@pytest.mark.parametrize("token", [None, TOKEN], ids=["lasting", "session"])
def test_a_listing_is_botocores(token: str | None) -> None:
    client, arguments = pair(token, endpoint="http://127.0.0.1:9000")
    wanted = client.generate_presigned_url(
        "list_objects_v2",
        {
            "Bucket": "the-bucket",
            "Prefix": "a b/+é/",
            "Delimiter": "/",
            "MaxKeys": 77,
            "EncodingType": "url",
            "ContinuationToken": "1/+==",
        },
        ExpiresIn=900,
    )
    client.close()
    query = ListingQuery("a b/+é/", recursive=False, page_size=77, token="1/+==")

    request = asyncio.run(at_the_time_of(wanted, arguments).listing(query))

    assert by_name(request.url) == by_name(wanted)


def test_a_put_with_headers_is_botocores() -> None:
    client, arguments = pair(TOKEN, **PLACES["own, port"])
    wanted = client.generate_presigned_url(
        "put_object",
        {
            "Bucket": "the-bucket",
            "Key": "a/b.json",
            "ContentType": "application/json",
            "ContentMD5": "xMpCOKC5I4INzFCab3WEmw==",
            "IfNoneMatch": "*",
            "ServerSideEncryption": "aws:kms",
            "SSEKMSKeyId": "arn:aws:kms:eu-west-1:1:key/2",
            "StorageClass": "STANDARD_IA",
            "RequestPayer": "requester",
        },
        ExpiresIn=900,
    )
    client.close()
    dialect = at_the_time_of(
        wanted,
        arguments
        | {
            "headers": {"x-amz-request-payer": "requester"},
            "put_arguments": {
                "x-amz-server-side-encryption": "aws:kms",
                "x-amz-server-side-encryption-aws-kms-key-id": "arn:aws:kms:eu-west-1:1:key/2",
                "x-amz-storage-class": "STANDARD_IA",
            },
        },
    )
    headers = dialect.put_headers(b"1", "application/json", if_absent=True)

    request = asyncio.run(dialect.request("PUT", "a/b.json", headers, b"1"))

    assert by_name(request.url) == by_name(wanted)


def by_name(url: str) -> tuple[str, list[str]]:
    """A URL without the order of its query, which means nothing."""
    head, _, query = url.partition("?")
    return head, sorted(query.split("&"))


def test_browsers_may_be_sent_to_another_endpoint() -> None:
    dialect = S3Dialect(
        "the-bucket",
        FixedCredentials(AwsCredentials("AKIDEXAMPLE", "secret")),
        endpoint="http://minio:9000",
        public_endpoint="https://files.example",
    )

    url = asyncio.run(dialect.sign("a", seconds=60, content_type=None))
    own = asyncio.run(dialect.request("GET", "a", {}))

    assert url.startswith("https://files.example/the-bucket/a?")
    assert own.url.startswith("http://minio:9000/the-bucket/a?")


@pytest.mark.parametrize("seconds", [0, -1, 7 * 24 * 3600 + 1])
def test_s3_signs_for_seven_days_at_most(seconds: int) -> None:
    dialect = S3Dialect("b", FixedCredentials(AwsCredentials("A", "s")))

    with pytest.raises(ConfigurationError):
        asyncio.run(dialect.sign("a", seconds=seconds, content_type=None))


def test_a_key_that_a_browser_would_bend_is_not_signed() -> None:
    dialect = S3Dialect("b", FixedCredentials(AwsCredentials("A", "s")))

    with pytest.raises(InvalidKey):
        asyncio.run(dialect.sign("a/../b", seconds=9, content_type=None))


@pytest.mark.parametrize("endpoint", ["minio:9000", "ftp://minio", "http://", "https://u:p@host"])
def test_an_endpoint_is_an_http_url(endpoint: str) -> None:
    dialect = S3Dialect("b", FixedCredentials(None), endpoint=endpoint)

    with pytest.raises(ConfigurationError):
        asyncio.run(dialect.request("GET", "a", {}))


def test_our_own_urls_serve_a_minute_and_no_clock_that_was_set_back() -> None:
    """All ranges of an object may use one; dated in the future, S3 would refuse it."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    moments = iter([now, now, now + timedelta(seconds=59), now + timedelta(seconds=61)])
    back = iter([now - timedelta(hours=1)] * 2)
    clock = chain(moments, [now + timedelta(seconds=61)], back).__next__
    dialect = S3Dialect("b", FixedCredentials(AwsCredentials("A", "s")), clock=clock)

    async def story() -> list[str]:
        asked = [{}, {"Range": "bytes=0-9"}, {}, {}]
        return [(await dialect.request("GET", "a", headers)).url for headers in asked]

    first, soon, later, earlier = asyncio.run(story())

    assert "X-Amz-Date=20260101T000000Z" in first
    assert soon == first
    assert "X-Amz-Date=20260101T000101Z" in later
    assert "X-Amz-Date=20251231T230000Z" in earlier
