"""Ranges and conditions as clients meet them, by RFC 9110, sections 13 and 14."""

from __future__ import annotations

import asyncio
import http.client
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from urllib.parse import urlsplit

import pytest

from conftest import OpenPlace, Place, Site
from labelport.model import ObjectMeta
from labelport.resolving import proxy_url
from labelport.stores.memory import MemoryStore
from proxies import Answer, project, storage

BODY = bytes(number * 7 % 251 for number in range(3000))
SIZE, CAP = len(BODY), 1000  # the cap is the proxy's, in `small_site`

WHOLE, UNSATISFIABLE = "whole", "unsatisfiable"
Part = tuple[int, int]  # half open

#: By name: the headers' values, what of 3,000 bytes is served, and what of none.
RANGES: dict[str, tuple[Sequence[str], Part | str, str]] = {
    "no range": ([], WHOLE, WHOLE),
    "from the start": (["bytes=0-"], (0, 1000), UNSATISFIABLE),
    "first byte": (["bytes=0-0"], (0, 1), UNSATISFIABLE),
    "in the middle": (["bytes=100-200"], (100, 201), UNSATISFIABLE),
    "open, over the cap": (["bytes=100-"], (100, 1100), UNSATISFIABLE),
    "open, under the cap": (["bytes=2500-"], (2500, 3000), UNSATISFIABLE),
    "last byte": (["bytes=2999-2999"], (2999, 3000), UNSATISFIABLE),
    "last byte, open": (["bytes=2999-"], (2999, 3000), UNSATISFIABLE),
    "beyond the end": (["bytes=2990-9000"], (2990, 3000), UNSATISFIABLE),
    "at the end": (["bytes=3000-"], UNSATISFIABLE, UNSATISFIABLE),
    "at the end, closed": (["bytes=3000-3000"], UNSATISFIABLE, UNSATISFIABLE),
    "past the end": (["bytes=3001-4000"], UNSATISFIABLE, UNSATISFIABLE),
    "suffix of one": (["bytes=-1"], (2999, 3000), WHOLE),
    "suffix": (["bytes=-100"], (2900, 3000), WHOLE),
    "suffix of nothing": (["bytes=-0"], UNSATISFIABLE, UNSATISFIABLE),
    "suffix of cap": (["bytes=-1000"], (2000, 3000), WHOLE),
    "suffix over the cap": (["bytes=-1001"], (1999, 2999), WHOLE),
    "suffix of size": (["bytes=-3000"], (0, 1000), WHOLE),
    "suffix over size": (["bytes=-3001"], (0, 1000), WHOLE),
    "suffix of 20 digits": (["bytes=-99999999999999999999"], (0, 1000), WHOLE),
    "cap": (["bytes=500-1499"], (500, 1500), UNSATISFIABLE),
    "cap and one": (["bytes=500-1500"], (500, 1500), UNSATISFIABLE),
    "the whole, closed": (["bytes=0-2999"], (0, 1000), UNSATISFIABLE),
    "stop of 20 digits": (["bytes=10-99999999999999999999"], (10, 1010), UNSATISFIABLE),
    "start of 19 digits": (["bytes=9223372036854775807-"], UNSATISFIABLE, UNSATISFIABLE),
    "start of 20 digits": (["bytes=99999999999999999999-"], UNSATISFIABLE, UNSATISFIABLE),
    "start of 50 digits": ([f"bytes={'9' * 50}-{'9' * 50}"], UNSATISFIABLE, UNSATISFIABLE),
    "leading zeros": (["bytes=0000000100-0000000200"], (100, 201), UNSATISFIABLE),
    "backwards": (["bytes=200-100"], WHOLE, WHOLE),
    "garbage": (["garbage"], WHOLE, WHOLE),
    "no number": (["bytes=abc-def"], WHOLE, WHOLE),
    "no bound": (["bytes=-"], WHOLE, WHOLE),
    "no range of its unit": (["bytes="], WHOLE, WHOLE),
    "signed": (["bytes=+1-2"], WHOLE, WHOLE),
    "fraction": (["bytes=1.0-2"], WHOLE, WHOLE),
    "negative": (["bytes=--1"], WHOLE, WHOLE),
    "other unit": (["items=0-5"], WHOLE, WHOLE),
    "unit in capitals": (["BYTES=0-5"], (0, 6), UNSATISFIABLE),
    "space before the sign": (["bytes =0-5"], WHOLE, WHOLE),
    "space inside": (["bytes=0 - 5"], WHOLE, WHOLE),
    "space around": (["bytes=0-5  "], (0, 6), UNSATISFIABLE),
    "two ranges": (["bytes=0-5,10-15"], WHOLE, WHOLE),
    "the same range twice": (["bytes=0-5,0-5"], WHOLE, WHOLE),
    "trailing comma": (["bytes=0-5,"], (0, 6), UNSATISFIABLE),
    "empty header": ([""], WHOLE, WHOLE),
    "header of 10,000 digits": ([f"bytes=0-{'9' * 10_000}"], WHOLE, WHOLE),
    "header of 10,000 commas": ([f"bytes={',' * 10_000}0-5"], WHOLE, WHOLE),
    "two headers": (["bytes=0-5", "bytes=10-15"], WHOLE, WHOLE),
}


@dataclass(frozen=True)
class Situation:
    """An object in a place, and what its whole answer says."""

    place: Place
    key: str
    etag: str
    modified: datetime

    def words(self) -> dict[str, str]:
        """What conditions may say of the object."""
        second = timedelta(seconds=1)
        dates = {
            "same": self.modified,
            "later": self.modified + second,
            "earlier": self.modified - second,
            "much_later": self.modified + timedelta(days=900),
            "much_earlier": self.modified - timedelta(days=900),
        }
        asctime = self.modified.strftime("%a %b {:2d} %H:%M:%S %Y").format(self.modified.day)
        return {
            "etag": self.etag,
            "asctime": asctime,
            "rfc850": self.modified.strftime("%A, %d-%b-%y %H:%M:%S GMT"),
            **{name: format_datetime(date, usegmt=True) for name, date in dates.items()},
        }


def situation(place: Place, key: str) -> Situation:
    answer = place.get(key)
    modified = parsedate_to_datetime(answer.headers["last-modified"])
    return Situation(place, key, answer.headers["etag"], modified)


@pytest.fixture(scope="module", params=["local", "weed"])
def place(request: pytest.FixtureRequest, open_place: OpenPlace) -> Place:
    made = open_place(request.param)
    made.put("full.bin", BODY)
    made.put("empty.bin", b"")
    return made


@pytest.fixture(scope="module")
def full(place: Place) -> Situation:
    return situation(place, "full.bin")


def ask(
    place: Place, method: str, key: str, headers: Sequence[tuple[str, str]]
) -> tuple[Answer, int]:
    """The answer, and how many bodies were opened for it; names may come twice."""
    opened = place.calls["open"]
    at = urlsplit(place.client.url)
    connection = http.client.HTTPConnection(at.hostname or "", at.port, timeout=30)
    try:
        storage = place.storage
        target = proxy_url("", "projects", storage.project_id, storage.uri(key))
        connection.putrequest(method, target)
        for name, value in (*place.client.headers.items(), *headers):
            connection.putheader(name, value)
        connection.endheaders()
        got = connection.getresponse()
        fields = {name.lower(): value for name, value in got.getheaders()}
        answer = Answer(got.status, fields, got.read())
    finally:
        connection.close()
    return answer, place.calls["open"] - opened


def check(answer: Answer, expected: Part | str | int, body: bytes) -> None:
    """Whether the answer is *expected*: the whole, a part, or another status."""
    fields = answer.headers
    if isinstance(expected, tuple):
        start, stop = expected
        assert answer.status == 206
        assert fields["content-range"] == f"bytes {start}-{stop - 1}/{len(body)}"
        assert answer.body == body[start:stop]
        assert fields["content-length"] == str(stop - start)
    elif expected == WHOLE:
        assert answer.status == 200
        assert "content-range" not in fields
        assert answer.body == body
        assert fields["content-length"] == str(len(body))
    elif expected == UNSATISFIABLE:
        assert answer.status == 416
        assert fields["content-range"] == f"bytes */{len(body)}"
    else:
        assert answer.status == expected
        assert "content-range" not in fields


def served(answer: Answer) -> bool:
    """Whether every header is there that an object's answer needs."""
    fields = answer.headers
    return (
        fields["accept-ranges"] == "bytes"
        and {"etag", "last-modified", "date", "content-type"} <= fields.keys()
        and {"Cookie", "Authorization"} <= set(fields["vary"].split(", "))
        and fields["cache-control"].startswith("private")
    )


@pytest.mark.parametrize("name", RANGES)
def test_a_range_of_an_object(place: Place, name: str) -> None:
    values, expected, _ = RANGES[name]
    answer, _ = ask(place, "GET", "full.bin", [("Range", value) for value in values])

    check(answer, expected, BODY)
    assert expected == UNSATISFIABLE or served(answer)


@pytest.mark.parametrize("name", RANGES)
def test_a_range_of_an_empty_object(place: Place, name: str) -> None:
    """Only a suffix that is not 0 is satisfiable, by all there is; 206 cannot say that."""
    values, _, expected = RANGES[name]
    answer, _ = ask(place, "GET", "empty.bin", [("Range", value) for value in values])

    check(answer, expected, b"")


@pytest.mark.parametrize("name", RANGES)
def test_head_knows_no_ranges(place: Place, name: str) -> None:
    values, _, _ = RANGES[name]
    answer, opened = ask(place, "HEAD", "full.bin", [("Range", value) for value in values])

    assert (answer.status, answer.body, opened) == (200, b"", 0)
    assert answer.headers["content-length"] == str(SIZE)
    assert "content-range" not in answer.headers
    assert served(answer)


OTHER = '"another"'
R = ("Range", "bytes=100-199")
FAR = ("Range", "bytes=3000-")
INM, IM, IMS, IUS, IR = (
    *("If-None-Match", "If-Match", "If-Modified-Since", "If-Unmodified-Since", "If-Range"),
)
PART = (100, 200)

#: By name: headers, with `Situation.words` in braces, and what a GET answers.
CONDITIONS: dict[str, tuple[Sequence[tuple[str, str]], Part | str | int]] = {
    "none-match exact": ([(INM, "{etag}")], 304),
    "none-match any": ([(INM, "*")], 304),
    "none-match list": ([(INM, f'{OTHER}, {{etag}} ,"third"')], 304),
    "none-match list without it": ([(INM, f'{OTHER}, "third"')], WHOLE),
    "none-match two headers": ([(INM, "{etag}"), (INM, OTHER)], 304),
    "none-match weak": ([(INM, "W/{etag}")], 304),
    "none-match other": ([(INM, OTHER)], WHOLE),
    "none-match malformed": ([(INM, "{etag}-tail")], WHOLE),
    "none-match unquoted": ([(INM, "abc")], WHOLE),
    "none-match empty": ([(INM, "")], WHOLE),
    "none-match longer tag": ([(INM, '"x{etag}')], WHOLE),
    "none-match comma in a tag": ([(INM, '"a,b", {etag}')], 304),
    "none-match exact, range": ([(INM, "{etag}"), R], 304),
    "none-match other, range": ([(INM, OTHER), R], PART),
    "none-match other, far range": ([(INM, OTHER), FAR], UNSATISFIABLE),
    "none-match exact, far range": ([(INM, "{etag}"), FAR], 304),
    "match exact": ([(IM, "{etag}")], WHOLE),
    "match any": ([(IM, "*")], WHOLE),
    "match other": ([(IM, OTHER)], 412),
    "match weak": ([(IM, "W/{etag}")], 412),
    "match small weak": ([(IM, "w/{etag}")], 412),
    "match list": ([(IM, f"{OTHER}, {{etag}}")], WHOLE),
    "match list without it": ([(IM, f'{OTHER}, "third"')], 412),
    "match two headers": ([(IM, "{etag}"), (IM, OTHER)], WHOLE),
    "match malformed": ([(IM, "abc")], 412),
    "match exact, range": ([(IM, "{etag}"), R], PART),
    "match other, range": ([(IM, OTHER), R], 412),
    "match other, far range": ([(IM, OTHER), FAR], 412),
    "modified-since equal": ([(IMS, "{same}")], 304),
    "modified-since later": ([(IMS, "{later}")], 304),
    "modified-since much later": ([(IMS, "{much_later}")], 304),
    "modified-since earlier": ([(IMS, "{earlier}")], WHOLE),
    "modified-since much earlier": ([(IMS, "{much_earlier}")], WHOLE),
    "modified-since asctime": ([(IMS, "{asctime}")], 304),
    "modified-since RFC 850": ([(IMS, "{rfc850}")], 304),
    "modified-since garbage": ([(IMS, "yesterday")], WHOLE),
    "modified-since empty": ([(IMS, "")], WHOLE),
    "modified-since huge year": ([(IMS, f"Sun, 06 Nov {'9' * 20} 08:49:37 GMT")], WHOLE),
    "modified-since no such day": ([(IMS, "Sun, 99 Nov 2094 08:49:37 GMT")], WHOLE),
    "modified-since end of time": ([(IMS, "Fri, 31 Dec 9999 23:59:59 -0100")], WHOLE),
    "modified-since two dates": ([(IMS, "{later}"), (IMS, "{later}")], WHOLE),
    "modified-since later, range": ([(IMS, "{later}"), R], 304),
    "modified-since earlier, range": ([(IMS, "{earlier}"), R], PART),
    "unmodified-since equal": ([(IUS, "{same}")], WHOLE),
    "unmodified-since later": ([(IUS, "{later}")], WHOLE),
    "unmodified-since earlier": ([(IUS, "{earlier}")], 412),
    "unmodified-since garbage": ([(IUS, "yesterday")], WHOLE),
    "unmodified-since huge year": ([(IUS, f"Sun, 06 Nov {'9' * 20} 08:49:37 GMT")], WHOLE),
    "unmodified-since equal, range": ([(IUS, "{same}"), R], PART),
    "unmodified-since earlier, range": ([(IUS, "{earlier}"), R], 412),
    "if-range exact": ([(IR, "{etag}"), R], PART),
    "if-range other": ([(IR, OTHER), R], WHOLE),
    "if-range weak": ([(IR, "W/{etag}"), R], WHOLE),
    "if-range list": ([(IR, f"{OTHER}, {{etag}}"), R], WHOLE),
    "if-range any": ([(IR, "*"), R], WHOLE),
    "if-range same date": ([(IR, "{same}"), R], PART),
    "if-range later": ([(IR, "{later}"), R], WHOLE),
    "if-range earlier": ([(IR, "{earlier}"), R], WHOLE),
    "if-range garbage": ([(IR, "garbage"), R], WHOLE),
    "if-range empty": ([(IR, ""), R], WHOLE),
    "if-range huge year": ([(IR, f"Sun, 06 Nov {'9' * 20} 08:49:37 GMT"), R], WHOLE),
    "if-range exact, far range": ([(IR, "{etag}"), FAR], UNSATISFIABLE),
    "if-range other, far range": ([(IR, OTHER), FAR], WHOLE),
    "if-range same date, far range": ([(IR, "{same}"), FAR], UNSATISFIABLE),
    "if-range garbage, far range": ([(IR, "garbage"), FAR], WHOLE),
    "if-range exact, suffix": ([(IR, "{etag}"), ("Range", "bytes=-10")], (2990, 3000)),
    "if-range other, suffix": ([(IR, OTHER), ("Range", "bytes=-10")], WHOLE),
    "if-range other, suffix of nothing": ([(IR, OTHER), ("Range", "bytes=-0")], WHOLE),
    "if-range exact, two ranges": ([(IR, "{etag}"), ("Range", "bytes=0-1,3-4")], WHOLE),
    "if-range exact, no range": ([(IR, "{etag}")], WHOLE),
    "if-range other, no range": ([(IR, OTHER)], WHOLE),
    "match before unmodified-since": ([(IM, "{etag}"), (IUS, "{earlier}")], WHOLE),
    "match fails before unmodified-since": ([(IM, OTHER), (IUS, "{later}")], 412),
    "none-match before modified-since": ([(INM, OTHER), (IMS, "{later}")], WHOLE),
    "none-match holds before modified-since": ([(INM, "{etag}"), (IMS, "{earlier}")], 304),
    "match fails before none-match": ([(IM, OTHER), (INM, "{etag}")], 412),
    "match holds, then none-match": ([(IM, "{etag}"), (INM, "{etag}")], 304),
    "match holds, then modified-since": ([(IM, "{etag}"), (IMS, "{later}")], 304),
    "unmodified-since fails before none-match": ([(IUS, "{earlier}"), (INM, "{etag}")], 412),
    "unmodified-since, then modified-since": ([(IUS, "{same}"), (IMS, "{same}")], 304),
    "match fails before if-range": ([(IM, OTHER), (IR, "{etag}"), R], 412),
    "none-match before if-range": ([(INM, "{etag}"), (IR, OTHER), R], 304),
    "all hold": (
        [(IM, "{etag}"), (IUS, "{same}"), (INM, OTHER), (IMS, "{earlier}"), (IR, "{etag}"), R],
        PART,
    ),
}


@pytest.mark.parametrize("name", CONDITIONS)
def test_a_condition(full: Situation, name: str) -> None:
    """A 304 or 412 costs no body."""
    headers, expected = CONDITIONS[name]
    words = full.words()
    said = [(field, value.format(**words)) for field, value in headers]

    answer, opened = ask(full.place, "GET", full.key, said)

    check(answer, expected, BODY)
    if expected == 304:
        assert answer.body == b""
        assert answer.headers["etag"] == full.etag
        assert answer.headers["cache-control"].startswith("private")
        assert "Authorization" in answer.headers["vary"]
    if isinstance(expected, int):
        assert opened == 0


@pytest.mark.parametrize("name", CONDITIONS)
def test_head_is_judged_as_get_without_its_range(full: Situation, name: str) -> None:
    headers, expected = CONDITIONS[name]
    words = full.words()
    said = [(field, value.format(**words)) for field, value in headers]

    answer, opened = ask(full.place, "HEAD", full.key, said)

    assert answer.status == (expected if isinstance(expected, int) else 200)
    assert (answer.body, opened) == (b"", 0)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param([(INM, "{etag}")], 200, id="none-match"),
        pytest.param([(IR, "{etag}"), R], 200, id="if-range"),
        pytest.param([(IR, "{etag}"), FAR], 200, id="if-range far"),
        pytest.param([(IM, "{etag}")], 412, id="match"),
        pytest.param([(IM, "{etag}"), R], 412, id="match range"),
    ],
)
def test_an_overwritten_object_is_another(
    place: Place, headers: Sequence[tuple[str, str]], expected: int
) -> None:
    place.put("changing.bin", b"old" * 1000)
    old = situation(place, "changing.bin").etag
    new = b"the new one" * 200
    place.put("changing.bin", new)

    said = [(field, value.format(etag=old)) for field, value in headers]
    answer, _ = ask(place, "GET", "changing.bin", said)

    check(answer, WHOLE if expected == 200 else expected, new)
    assert answer.headers.get("etag") != old


def test_pieces_that_a_player_asks_for_make_the_object(place: Place, full: Situation) -> None:
    """What a shorter 206 leaves out is asked for again, under the same ETag."""
    got = b""
    while len(got) < SIZE:
        said = [("Range", f"bytes={len(got)}-"), (IR, full.etag)]
        answer, _ = ask(place, "GET", full.key, said)
        assert answer.status == 206
        got += answer.body

    assert got == BODY


def test_a_missing_object_has_no_conditions(place: Place) -> None:
    for said in ([], [R], [(INM, "*")], [(IM, "*")], [(IR, OTHER), R]):
        answer, _ = ask(place, "GET", "missing.bin", said)

        assert answer.status == 404


class Restless(MemoryStore):
    """Objects that are overwritten as soon as somebody has looked at them."""

    changes = 0  #: how many more there will be

    async def head(self, key: str) -> ObjectMeta:
        meta = await super().head(key)
        if self.changes:
            self.changes -= 1
            await self.put(key, b"%d changes are left" % self.changes * 9)
        return meta


@pytest.mark.parametrize(
    ("headers", "status", "part"),
    [
        pytest.param([("Range", "bytes=-10")], 206, slice(-10, None), id="suffix"),
        pytest.param([(INM, OTHER)], 200, slice(None), id="none-match"),
        pytest.param([(INM, OTHER), ("Range", "bytes=5-9")], 206, slice(5, 10), id="range"),
        pytest.param([(IR, OTHER), ("Range", "bytes=-10")], 200, slice(None), id="if-range"),
    ],
)
def test_an_object_that_changes_under_a_request_is_served_as_it_is_then(
    small_site: Site, headers: Sequence[tuple[str, str]], status: int, part: slice
) -> None:
    """Head, ETag and bytes are of one version; what never rests is a failure of the store."""
    name = f"restless-{uuid.uuid4().hex[:8]}"
    store = Restless(name)
    project_id = project(small_site.catalog, name)
    made = storage(small_site.catalog, project_id, name, f"memory://{name}", serve_any_key=True)
    small_site.stores[made.id] = lambda: store
    place = Place(made, small_site.member(project_id), lambda key, body: None)
    asyncio.run(store.put("clip.bin", b"before"))

    store.changes = 1
    once, _ = ask(place, "GET", "clip.bin", headers)
    store.changes = 9
    always, _ = ask(place, "GET", "clip.bin", headers)

    body = b"0 changes are left" * 9
    assert (once.status, once.body) == (status, body[part])
    assert once.headers["content-length"] == str(len(body[part]))
    assert always.status == 502
    assert b"object_changed" in always.body
