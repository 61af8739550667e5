"""Signed links: what was signed holds until it expires, and nothing else ever."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelport.links import sign, signed_url, verify
from labelport.resolving import decode_fileuri, proxy_path, proxy_url

SECRET = "correct horse battery staple, twice"
SIGNED = {
    "secret": SECRET,
    "path": "/tasks/7/resolve/",
    "uri": "s3://b/k",
    "user_id": 12,
    "expires": 1_000,
}
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
FIELDS = st.tuples(TEXT, TEXT, st.integers(), st.integers())


def test_a_link_holds_until_it_expires():
    signature = sign(**SIGNED)

    assert verify(**SIGNED, signature=signature, now=999.9)
    assert not verify(**SIGNED, signature=signature, now=1_000)


@pytest.mark.parametrize(
    "change",
    [
        {"secret": SECRET + "!"},
        {"path": "/projects/7/resolve/"},
        {"path": "/tasks/71/resolve/"},
        {"uri": "s3://b/k2"},
        {"user_id": 1},
        {"expires": 2_000},
        {"uri": "s3://b/k1", "user_id": 2},
    ],
    ids=str,
)
def test_a_signature_is_of_nothing_else(change):
    assert not verify(**SIGNED | change, signature=sign(**SIGNED), now=0)


@pytest.mark.parametrize("signature", ["", "x", "é", "\ud800", "A" * 43, sign(**SIGNED) + "="])
def test_what_is_no_signature_is_refused(signature):
    assert not verify(**SIGNED, signature=signature, now=0)


@given(FIELDS, FIELDS)
def test_two_links_never_share_a_signature(one, two):
    assert (sign(SECRET, *one) == sign(SECRET, *two)) == (one == two)


def test_fields_cannot_run_into_each_other():
    assert sign(SECRET, "/a", "b", 1, 23) != sign(SECRET, "/ab", "", 1, 23)
    assert sign(SECRET, "/a", "b", 1, 23) != sign(SECRET, "/a", "b", 12, 3)


@pytest.mark.parametrize("kind", ["tasks", "projects"])
def test_a_signed_url_holds_all_that_verifies_it(kind):
    uri = "s3://b/é &?#+.jpg"
    url = signed_url(
        "https://m.example/media", kind, 7, uri, secret=SECRET, user_id=12, expires=1_000
    )
    query = {name: value for name, (value,) in parse_qs(urlsplit(url).query).items()}

    assert url.startswith(proxy_url("https://m.example/media", kind, 7, uri) + "&")
    assert sorted(query) == ["expires", "fileuri", "signature", "user"]
    assert verify(
        SECRET,
        proxy_path(kind, 7),
        decode_fileuri(query["fileuri"]),
        int(query["user"]),
        int(query["expires"]),
        query["signature"],
        now=0,
    )
