"""Which bytes, whether at all, and what is said of them: the proxy's pure functions."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from labelport.model import ByteRange, ObjectMeta
from labelport_proxy import conditions, presenting, ranges
from labelport_proxy.conditions import Verdict
from labelport_proxy.fields import fields, pairs_of

UNSATISFIABLE = "unsatisfiable"

sizes = st.integers(0, 60)
caps = st.integers(1, 40)
numbers = st.one_of(st.integers(0, 80), st.integers(10**18, 10**50))
digits = st.tuples(st.sampled_from(["", "0", "000"]), numbers).map(lambda two: f"{two[0]}{two[1]}")
specs = st.one_of(
    st.builds("{}-{}".format, digits, digits),
    digits.map("{}-".format),
    digits.map("-{}".format),
    st.sampled_from(["", "-", "a-b", "1-2-3", "1", "+1-2", "1.0-2", "--1", " 1-2 ", "\t4-", "٣-٤"]),
)
units = st.sampled_from(["bytes", "Bytes", "BYTES", "byte", "items", ""])
headers = st.builds(
    lambda unit, equals, parts: unit + equals + ",".join(parts),
    units,
    st.sampled_from(["=", " =", "= ", ""]),
    st.lists(specs, min_size=1, max_size=3),
)


def reference(header: str, size: int, cap: int) -> list[int] | str | None:
    """The served bytes' numbers, one after the other, by the wording of RFC 9110, 14.1 and 14.2.

    None: the header is ignored, as it is for what no single part can answer.
    """
    unit, equals, text = header.partition("=")
    if unit.lower() != "bytes" or not equals:
        return None
    members = [member.strip(" \t") for member in text.split(",")]
    members = [member for member in members if member]
    if len(members) != 1:
        return None
    first, dash, last = members[0].partition("-")
    if not dash or any(set(number) - set("0123456789") for number in (first, last)):
        return None
    if not first and not last:
        return None
    every = list(range(size))
    if not first:
        if int(last) == 0:
            return UNSATISFIABLE
        return every[-int(last) :][:cap] or None
    if last and int(last) < int(first):
        return None
    named = [n for n in every if n >= int(first) and (not last or n <= int(last))]
    return named[:cap] or UNSATISFIABLE


def served(header: str, size: int, cap: int) -> list[int] | str | None:
    """The same by what is under test."""
    asked = ranges.parse(header)
    if asked is None:
        return None
    try:
        found = ranges.bounded(asked, size, cap)
    except ranges.NotSatisfiable:
        return UNSATISFIABLE
    return None if found is None else list(range(size))[found.start : found.stop]


@given(headers, sizes, caps)
@example("bytes=-5", 0, 1)
@example("bytes=-0", 0, 1)
@example("bytes=0-", 0, 1)
def test_ranges_are_those_of_a_slow_reading_of_the_rfc(header: str, size: int, cap: int) -> None:
    assert served(header, size, cap) == reference(header, size, cap)


@given(st.text(alphabet=st.characters(max_codepoint=255), max_size=300), sizes, caps)
def test_any_header_is_read(header: str, size: int, cap: int) -> None:
    assert served(header, size, cap) == reference(header, size, cap)


@given(headers, sizes, caps)
def test_a_served_range_is_inside_object_and_cap(header: str, size: int, cap: int) -> None:
    """Whether or not the size is known when it is chosen, it begins where it was asked to."""
    asked = ranges.parse(header)
    if asked is None or served(header, size, cap) in (None, UNSATISFIABLE):
        return
    found = ranges.bounded(asked, size, cap)

    assert found is not None and found.stop is not None
    assert 0 <= found.start < found.stop <= size
    assert found.stop - found.start <= cap
    if asked.first is not None:
        blind = ranges.bounded(asked, None, cap)
        assert blind is not None and blind.stop is not None
        assert blind == ByteRange(found.start, max(found.stop, blind.stop))
        assert blind.stop - blind.start <= cap


def test_the_end_of_an_object_of_unknown_size_is_unknown() -> None:
    with pytest.raises(ValueError, match="unknown size"):
        ranges.bounded(ranges.Asked(None, 5), None, 10)


MODIFIED = datetime(2024, 2, 29, 12, 30, 15, 600_000, tzinfo=UTC)
ETAG = '"0123abcd"'

#: What a header of tags may hold, and whether it matches strongly and weakly.
TAGS = {
    None: (None, None),
    "*": (True, True),
    ETAG: (True, True),
    f"W/{ETAG}": (False, True),
    f'"x", {ETAG}': (True, True),
    f'"x",W/{ETAG} , "y"': (False, True),
    ',, "0123abcd" ,': (True, True),
    '"x"': (False, False),
    '"x", W/"y"': (False, False),
    "0123abcd": (False, False),
    "garbage": (False, False),
    f"w/{ETAG}": (False, False),
    f"x{ETAG}": (False, False),
    "": (False, False),
}
tag_headers = st.sampled_from(list(TAGS))

#: Seconds from the object's own time to the header's; None: no date; garbage is as if absent.
offsets = st.one_of(st.none(), st.sampled_from([-(10**8), -1, 0, 1, 10**8]))
forms = st.sampled_from(["fixed", "rfc850", "asctime"])


def http_date(offset: int, form: str = "fixed") -> str:
    moment = MODIFIED.replace(microsecond=0) + timedelta(seconds=offset)
    if form == "rfc850":
        return moment.strftime("%A, %d-%b-%y %H:%M:%S GMT")
    if form == "asctime":
        return moment.strftime("%a %b {:2d} %H:%M:%S %Y").format(moment.day)
    return format_datetime(moment, usegmt=True)


def table(
    match: bool | None, unmodified: int | None, none_match: bool | None, modified: int | None
) -> Verdict:
    """RFC 9110, 13.2.2, step by step, for GET and HEAD."""
    if match is not None:  # step 1
        if match is False:
            return Verdict.FAILED
    elif unmodified is not None and unmodified < 0:  # step 2
        return Verdict.FAILED
    if none_match is not None:  # step 3
        if none_match is True:
            return Verdict.NOT_MODIFIED
    elif modified is not None and modified >= 0:  # step 4
        return Verdict.NOT_MODIFIED
    return Verdict.PROCEED


@given(tag_headers, offsets, tag_headers, offsets, forms)
def test_preconditions_are_judged_in_the_rfcs_order(
    if_match: str | None,
    unmodified: int | None,
    if_none_match: str | None,
    modified: int | None,
    form: str,
) -> None:
    given = {
        "if-match": if_match,
        "if-none-match": if_none_match,
        "if-unmodified-since": None if unmodified is None else http_date(unmodified, form),
        "if-modified-since": None if modified is None else http_date(modified, form),
    }
    said = {name: value for name, value in given.items() if value is not None}

    found = conditions.judge(said, ETAG, MODIFIED)

    strong, weak = TAGS[if_match][0], TAGS[if_none_match][1]
    assert found is table(strong, unmodified, weak, modified)


@pytest.mark.parametrize("name", conditions.PRECONDITIONS)
def test_what_an_object_does_not_have_matches_only_any(name: str) -> None:
    """Neither ETag nor time: a tag is never its own, a date tells nothing, and yet it exists."""
    tags = name in ("if-match", "if-none-match")
    said = {name: ETAG if tags else http_date(0)}
    failed = Verdict.FAILED if name == "if-match" else Verdict.PROCEED
    matched = Verdict.NOT_MODIFIED if name == "if-none-match" else Verdict.PROCEED

    assert conditions.judge(said, None, None) is failed
    assert not tags or conditions.judge({name: "*"}, None, None) is matched


@given(st.text(alphabet=st.characters(max_codepoint=255)))
@example(f"Sun, 06 Nov {'9' * 30} 08:49:37 GMT")
@example(f"Sun, 06 Nov 1994 08:49:37 +{'9' * 30}")
@example("Fri, 31 Dec 9999 23:59:59 -0100")
@example("Sun, 06 Nov 1994 08:49:99 GMT")
@example("Sunday, 31-Feb-94 08:49:37 GMT")
def test_any_text_where_a_date_should_be_is_as_if_it_were_absent(text: str) -> None:
    said = {"if-modified-since": text, "if-unmodified-since": text}

    assert conditions.judge(said, ETAG, MODIFIED) is Verdict.PROCEED
    assert conditions.range_holds(text, ETAG, MODIFIED) is (text == ETAG)


@pytest.mark.parametrize(
    ("if_range", "etag", "modified", "holds"),
    [
        pytest.param(None, ETAG, MODIFIED, True, id="absent"),
        pytest.param(ETAG, ETAG, MODIFIED, True, id="etag"),
        pytest.param(f"W/{ETAG}", ETAG, MODIFIED, False, id="weak"),
        pytest.param('"x"', ETAG, MODIFIED, False, id="other"),
        pytest.param(f'"x", {ETAG}', ETAG, MODIFIED, False, id="list"),
        pytest.param("*", ETAG, MODIFIED, False, id="any"),
        pytest.param(ETAG, None, MODIFIED, False, id="etag of none"),
        pytest.param(http_date(0), ETAG, MODIFIED, True, id="same date"),
        pytest.param(http_date(0), None, MODIFIED, True, id="same date, no etag"),
        pytest.param(http_date(0), ETAG, None, False, id="date of none"),
        pytest.param(http_date(1), ETAG, MODIFIED, False, id="later date"),
        pytest.param(http_date(-1), ETAG, MODIFIED, False, id="earlier date"),
    ],
)
def test_a_range_holds_for_the_very_same_version(
    if_range: str | None, etag: str | None, modified: datetime | None, holds: bool
) -> None:
    assert conditions.range_holds(if_range, etag, modified) is holds


def meta(key: str = "a/b.bin", content_type: str = "", encoding: str = "") -> ObjectMeta:
    return ObjectMeta(key, 10, "e1", MODIFIED, content_type, encoding)


@pytest.mark.parametrize(
    ("key", "told", "expected"),
    [
        ("a.jpg", "", "image/jpeg"),
        ("a.jpg", "binary/octet-stream", "image/jpeg"),
        ("a.jpg", "application/octet-stream", "image/jpeg"),
        ("a.jpg", "image/png", "image/png"),
        ("a.JPG", "", "image/jpeg"),
        ("a.jpg/b", "", "application/octet-stream"),
        ("a.wav", "", "audio/wav"),
        ("a.webm", "", "video/webm"),
        ("a.mp4", "", "video/mp4"),
        ("a.csv", "text/csv; charset=UTF-8", "text/csv; charset=utf-8"),
        ("a.csv", 'text/csv;header=present;charset="utf-8"', "text/csv"),
        ("a", "IMAGE/PNG", "image/png"),
        ("a", "image/png\r\nset-cookie: a=b", "application/octet-stream"),
        ("a", "no type", "application/octet-stream"),
        ("a", "a/b/c", "application/octet-stream"),
        ("a", "/", "application/octet-stream"),
        ("a.js", "", "application/octet-stream"),
        ("a.css", "", "application/octet-stream"),
        ("a", "text/javascript", "application/octet-stream"),
        ("a", "Application/JavaScript; charset=x", "application/octet-stream; charset=x"),
        ("a", "application/x-shockwave-flash", "application/octet-stream"),
        ("a", "multipart/x-mixed-replace; boundary=x", "application/octet-stream"),
        ("a.html", "", "text/html"),
        ("a.svg", "", "image/svg+xml"),
    ],
)
def test_an_objects_content_type(key: str, told: str, expected: str) -> None:
    """The store's word, the ending's where that says nothing, and never code or style."""
    assert presenting.content_type(meta(key, told)) == expected


@pytest.mark.parametrize(
    ("kind", "shown"),
    [
        ("image/png", "inline"),
        ("video/mp4", "inline"),
        ("audio/wav", "inline"),
        ("text/plain; charset=utf-8", "inline"),
        ("application/pdf", "inline"),
        ("image/svg+xml", "attachment"),
        ("text/html", "attachment"),
        ("application/xhtml+xml", "attachment"),
        ("text/xml", "attachment"),
        ("image/png+xml", "attachment"),
        ("application/octet-stream", "attachment"),
    ],
)
def test_only_what_is_known_to_be_inert_is_shown(kind: str, shown: str) -> None:
    assert presenting.disposition(kind, "a/b.x").partition(";")[0] == shown


#: What RFC 9110 lets the value of a field be, as far as anybody should go.
PLAIN = re.compile(rb"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
any_text = st.text(max_size=40)


@given(any_text, any_text, any_text)
def test_no_object_can_write_headers(key: str, told: str, encoding: str) -> None:
    """Whatever the store says: each value is one plain line, and the guards are always there."""
    said = presenting.object_headers(meta(key, told, encoding), ETAG)

    assert all(PLAIN.fullmatch(value) for _, value in said)
    names = [name for name, _ in said]
    assert len(names) == len(set(names))
    assert set(presenting.GUARDS) <= set(said)


@pytest.mark.parametrize(
    ("told", "said"), [("gzip", "gzip"), ("GZIP", "gzip"), ("aws-chunked", None), ("x\r\ny", None)]
)
def test_only_encodings_that_browsers_know_are_passed_on(told: str, said: str | None) -> None:
    found = dict(presenting.object_headers(meta(encoding=told), ETAG))

    assert found.get(b"content-encoding") == (said and said.encode())


def test_an_etag_depends_on_secret_access_key_and_version() -> None:
    one, other = presenting.Tagger("s" * 40), presenting.Tagger("t" * 40)
    first = meta()
    tags = {
        one.tag(first, "1 1 annotator 1"),
        other.tag(first, "1 1 annotator 1"),
        one.tag(first, "1 1 manager 1"),
        one.tag(meta("a/c.bin"), "1 1 annotator 1"),
        one.tag(first._replace(etag="e2"), "1 1 annotator 1"),
    }

    assert len(tags) == 5
    assert all(tag and re.fullmatch(r'"[0-9a-f]{32}"', tag) for tag in tags)
    assert presenting.Tagger("s" * 40).tag(first, "1 1 annotator 1") in tags
    assert one.tag(first._replace(etag=""), "1 1 annotator 1") is None


@pytest.mark.parametrize("value", [b"a\r\nx: y", b"a\n x", b"a\rx", b"a\0", b"\x7f", b"\x1b[2J"])
def test_no_value_makes_another_line(value: bytes) -> None:
    with pytest.raises(ValueError, match="control"):
        fields((b"etag", b'"1"'), (b"content-type", value))


def test_fields_are_the_pairs_that_they_were_made_of() -> None:
    pairs = [(b"etag", b'"a: b"'), (b"vary", b"Cookie,\tOrigin"), (b"location", b"")]

    assert pairs_of(fields(*pairs)) == pairs
    assert pairs_of(fields()) == []
