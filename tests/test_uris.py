"""URIs inside task data: found where they are written, replaced and nothing else touched."""

from __future__ import annotations

import time
from html import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelport.uri import SCHEMES
from labelport.uris import replace_uris, uris_in

LEGAL = st.characters(exclude_categories=["Cc", "Cs"])
KEYS = st.text(LEGAL, min_size=1)
BUCKETS = st.text("abcdefghijklmnopqrstuvwxyz0123456789.-_", min_size=1)
URIS = st.builds("{}://{}/{}".format, st.sampled_from(SCHEMES), BUCKETS, KEYS)
OTHERS = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False)),
    st.text("abc <>&\"'()=/:.é", max_size=20),
)
DATA = st.recursive(
    URIS | OTHERS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20
)


def strings(value):
    """The URIs among the strings of parsed JSON that was made of `URIS` and `OTHERS`."""
    if isinstance(value, str):
        return [value] if value.startswith(tuple(f"{scheme}://" for scheme in SCHEMES)) else []
    if isinstance(value, dict):
        value = value.values()
    return [uri for item in value for uri in strings(item)] if hasattr(value, "__iter__") else []


@given(DATA)
def test_every_uri_in_lists_and_dicts_is_found_in_order(data):
    assert list(uris_in(data)) == strings(data)


@given(DATA)
def test_what_is_replaced_can_be_replaced_back(data):
    replaced = replace_uris(data, lambda uri: "memory://back/" + uri)
    back = replace_uris(replaced, lambda uri: uri.removeprefix("memory://back/"))

    assert strings(replaced) == [f"memory://back/{uri}" for uri in strings(data)]
    assert back == data


@given(DATA)
def test_no_replacement_leaves_a_copy(data):
    assert replace_uris(data, lambda _: None) == data


@given(st.lists(URIS, min_size=1), st.sampled_from("'\""))
def test_attributes_in_html_hold_exactly_these_uris(uris, quote):
    html = "<p>" + " ".join(f"<img src={quote}{escape(uri)}{quote} alt=''>" for uri in uris)
    replaced = replace_uris(html, lambda uri: f"https://m/?u={uris.index(uri)}&x")

    assert list(uris_in(html)) == uris
    assert replaced == "<p>" + " ".join(
        f"<img src={quote}https://m/?u={uris.index(uri)}&amp;x{quote} alt=''>" for uri in uris
    )


@given(st.text("s3:/b(k)=\"'<> &amp;\n\\http\ud800", max_size=60))
def test_text_without_replacements_stays_byte_for_byte(text):
    assert replace_uris(text, lambda _: None) == text
    assert all("\n" not in uri and "\ud800" not in uri for uri in uris_in(text))


@pytest.mark.parametrize(
    ("text", "uris"),
    [
        ("s3://b/a b?c#d,'e\"%20+.", ["s3://b/a b?c#d,'e\"%20+."]),
        ("  gs://b/k \r\n", ["gs://b/k "]),
        ("S3://b/k", ["S3://b/k"]),
        ("azure-blob://b//k", ["azure-blob://b//k"]),
        ("s3://b/a\ns3://b/c", ["s3://b/a", "s3://b/c"]),
        ("see s3://b/a, s3://b/c.", ["s3://b/a", "s3://b/c"]),
        ("![cat](s3://b/a.jpg) [x](gs://b/y(1).jpg 'z')", ["s3://b/a.jpg", "gs://b/y(1).jpg"]),
        ("<img src=file://b/k>", ["file://b/k"]),
        ("<img src = ' s3://b/it&#39;s a \"cat\".jpg\n'>", ['s3://b/it\'s a "cat".jpg']),
        ('<a href="s3://b/a?x&amp;y&copy=1&lt;">', ["s3://b/a?x&y&copy=1<"]),
        ("<img srcset='s3://b/a 1x, s3://b/c 2x'>", ["s3://b/a", "s3://b/c"]),
        ('<p style="background: url(&quot;s3://b/a b&quot;)">', ["s3://b/a"]),
        ('<img src="s3://b/never closed', ["s3://b/never"]),
        ("動画s3://b/映画.mp4、", ["s3://b/映画.mp4、"]),
    ],
)
def test_where_a_uri_begins_and_ends(text, uris):
    assert list(uris_in(text)) == uris


@pytest.mark.parametrize(
    "text",
    [
        "https://b.example/s3://b/k",
        "see https://x.example/?u=s3://b/k",
        "<img src='https://x.example/a b?u=s3://b/k'>",
        "s3://b",
        "s3://b/",
        "s3:///k",
        "hdfs://b/k",
        "xs3://b/k",
        "ſ3://b/k",
        "s3://b/\ud800",
        "<img src='s3://b/a&#10;b'>",
    ],
)
def test_what_is_no_uri(text):
    assert list(uris_in(text)) == []
    assert replace_uris(text, lambda _: "replaced") == text


def test_names_of_values_stay_and_the_data_given_too():
    data = {"s3://b/name": ["s3://b/k", {"x": "s3://b/k"}]}
    replaced = replace_uris(data, str.upper)

    assert replaced == {"s3://b/name": ["S3://B/K", {"x": "S3://B/K"}]}
    assert data == {"s3://b/name": ["s3://b/k", {"x": "s3://b/k"}]}


def test_depth_has_no_limit():
    data: object = "s3://b/k"
    for _ in range(100_000):
        data = [data]

    assert list(uris_in(data)) == ["s3://b/k"]
    replaced = replace_uris(data, str.upper)
    while isinstance(replaced, list):
        (replaced,) = replaced
    assert replaced == "S3://B/K"


@pytest.mark.parametrize(
    "piece",
    [
        *("s3://", "s3://b/k ", "x s3://b/(", "s3://b/)", "='s3://b/\n", "=\"s3://b/\n='s3://"),
        *("= ", "=' ", "& ://", "s3://b/&amp", "https://x/(", "<img src=\"s3://b/k'>", " ", "=\n"),
    ],
)
def test_hostile_text_takes_linear_time(piece):
    """A megabyte takes about a second at most; what is quadratic takes minutes."""
    text = ("x://" + piece * (2**20 // len(piece)))[: 2**20]
    started = time.process_time()

    assert replace_uris(text, lambda _: None) == text
    assert time.process_time() - started < 10
