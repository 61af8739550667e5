"""Listings as S3 servers write them, and as none should."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from labelport.model import ObjectMeta
from labelport.stores._s3_xml import parse_listing, parse_refusal

ENTRY = (
    "<Contents><Key>{}</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified>"
    "<ETag>&#34;e&#34;</ETag><Size>3</Size><Owner><ID>1</ID></Owner></Contents>"
)


def document(inside: str) -> bytes:
    return (
        f'<?xml version="1.0"?>\n<ListBucketResult xmlns="x">{inside}</ListBucketResult>'.encode()
    )


def test_an_entry_is_read_whatever_the_layout() -> None:
    entry = ENTRY.replace("><", ">\n    <").format("a&amp;b<![CDATA[<c>]]>")

    objects, prefixes, token = parse_listing(
        document(f"\n  <Prefix>p</Prefix>\n  {entry}\n  <IsTruncated>false</IsTruncated>\n")
    )

    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert objects == [ObjectMeta("a&b<c>", 3, "e", moment)]
    assert (prefixes, token) == ([], None)


@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
def test_keys_are_decoded_when_the_server_says_so(first: bool) -> None:
    encoding = "<EncodingType>url</EncodingType>"
    entries = "".join(map(ENTRY.format, ("a%2Bb+c", "line%0Abreak", "caf%C3%A9", "bad%FF")))
    folders = "<CommonPrefixes><Prefix>a+b/</Prefix></CommonPrefixes>"
    inside = encoding + entries + folders if first else entries + folders + encoding

    objects, prefixes, _ = parse_listing(document(inside))

    assert [o.key for o in objects] == ["a+b c", "line\nbreak", "café", "bad\udcff"]
    assert prefixes == ["a b/"]


def test_keys_are_left_alone_when_the_server_does_not_encode() -> None:
    objects, _, _ = parse_listing(document(ENTRY.format("100%25+1")))

    assert [o.key for o in objects] == ["100%25+1"]


def test_what_is_truncated_goes_on() -> None:
    more = "<NextContinuationToken>1/+=</NextContinuationToken><IsTruncated>true</IsTruncated>"

    assert parse_listing(document(more + ENTRY.format("a")))[2] == "1/+="


@pytest.mark.parametrize(
    "body",
    [
        b'<!DOCTYPE x [<!ENTITY a "aa">]><ListBucketResult>&a;</ListBucketResult>',
        '<?xml version="1.0" encoding="utf-16"?><!DOCTYPE x><ListBucketResult/>'.encode("utf-16"),
        b'<!DOCTYPE x SYSTEM "http://127.0.0.1:1/x"><ListBucketResult/>',
    ],
    ids=["entity", "utf-16", "external"],
)
def test_document_types_are_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match="document type"):
        parse_listing(body)


def test_a_refusal_names_code_message_and_region() -> None:
    body = b"<Error><Code>C</Code><Message>m</Message><Region>eu-west-1</Region></Error>"

    assert parse_refusal(body) == (("C", "m"), "eu-west-1")
    assert parse_refusal(b"<html>") == (("", ""), "")
    assert parse_refusal(b"") == (("", ""), "")
