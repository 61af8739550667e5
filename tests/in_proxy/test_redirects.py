"""``presign``: browsers are sent to the store, by a URL that lives long enough and no longer."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

import pytest

from conftest import OpenPlace, Place, Site
from labelport.resolving import proxy_url
from proxies import Answer
from servers import S3Server

BODY = bytes(range(256)) * 8


@pytest.fixture(scope="module")
def place(open_place: OpenPlace) -> Place:
    made = open_place("weed", presign=True)
    for key in ("cat.jpg", "clip.webm", "cat.unheard-of", "a b/ü+%?#.png"):
        made.put(key, BODY)
    return made


def follow(answer: Answer, headers: dict[str, str] | None = None) -> Answer:
    """What the store answers where *answer* leads, to a client that knows nothing else."""
    assert answer.status == 303
    location = answer.headers["location"]
    assert location.startswith("http://127.0.0.1:")
    request = urllib.request.Request(location, headers=headers or {})  # noqa: S310
    with urllib.request.urlopen(request, timeout=30) as got:  # noqa: S310
        fields = {name.lower(): value for name, value in got.headers.items()}
        return Answer(got.status, fields, got.read())


def max_age(answer: Answer) -> int:
    """For how many seconds a browser may go to the same URL again."""
    kind, _, age = answer.headers["cache-control"].partition(", max-age=")
    assert kind == "private"
    return int(age)


class Asked(NamedTuple):
    """An answer, and when it was asked for."""

    at: float
    answer: Answer


def until(ask: Callable[[], Answer], done: Callable[[Answer], bool]) -> list[Asked]:
    """Ask until something is *done*, for 20 seconds at most."""
    got: list[Asked] = []
    deadline = time.monotonic() + 20
    while not got or not done(got[-1].answer):
        assert time.monotonic() < deadline
        got.append(Asked(time.monotonic(), ask()))
    return got


@pytest.mark.parametrize(
    ("key", "content_type"),
    [
        ("cat.jpg", "image/jpeg"),
        ("clip.webm", "video/webm"),
        ("cat.unheard-of", "application/octet-stream"),
        ("a b/ü+%?#.png", "image/png"),
    ],
)
def test_the_url_leads_to_the_object(place: Place, key: str, content_type: str) -> None:
    answer = place.get(key)
    there = follow(answer)

    assert (answer.body, answer.headers["content-length"]) == (b"", "0")
    assert (there.status, there.body) == (200, BODY)
    assert there.headers["content-type"] == content_type


def test_the_store_honours_ranges_there(place: Place) -> None:
    """A player's Range goes along to the store, and no cap of ours is in the way."""
    headers = {"Range": "bytes=100-1999"}
    there = follow(place.get("clip.webm", headers), headers)

    assert (there.status, there.body) == (206, BODY[100:2000])
    assert there.headers["content-range"] == f"bytes 100-1999/{len(BODY)}"


def test_a_redirect_gives_nothing_else_away(place: Place, weed: S3Server) -> None:
    answer = place.get("cat.jpg")

    location = answer.headers["location"]
    assert location.startswith(weed.endpoint)
    assert weed.secret_access_key not in location
    assert place.client.headers["Authorization"].split()[1] not in str(answer)
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert {"Cookie", "Authorization"} <= set(answer.headers["vary"].split(", "))


def test_a_browser_may_use_a_url_for_half_its_life(place: Place) -> None:
    query = parse_qs(urlsplit(place.get("cat.jpg").headers["location"]).query)
    lives = int(query["X-Amz-Expires"][0])

    assert lives == place.storage.presign_seconds == 900
    assert 440 <= max_age(place.get("cat.jpg")) <= 450


def test_a_url_is_given_out_again_for_half_its_life_and_then_replaced(
    open_place: OpenPlace,
) -> None:
    place = open_place("weed", presign=True, presign_seconds=2)
    place.put("cat.jpg", BODY)
    begun = time.monotonic()
    first = place.get("cat.jpg")
    signed = time.monotonic()

    url = first.headers["location"]
    *same, (_, new) = until(
        lambda: place.get("cat.jpg"), lambda got: got.headers["location"] != url
    )

    assert time.monotonic() - begun >= 1
    assert len(same) > 2
    assert place.calls["sign"] == 2
    assert all(at < signed + 1 for at, _ in same)
    assert max_age(first) <= 1
    assert {max_age(answer) for _, answer in same} == {0}
    assert follow(new).body == BODY


def test_a_url_expires(open_place: OpenPlace) -> None:
    place = open_place("weed", presign=True, presign_seconds=1)
    place.put("cat.jpg", BODY)
    redirect = place.get("cat.jpg")

    def fetch() -> Answer:
        try:
            return follow(redirect)
        except urllib.error.HTTPError as refusal:
            with refusal:
                return Answer(refusal.code, {}, refusal.read())

    *_, (_, last) = until(fetch, lambda got: got.status != 200)

    assert last.status == 403
    assert BODY not in last.body


def test_one_url_is_for_all_who_may_see_the_object_and_for_nobody_else(
    place: Place, small_site: Site
) -> None:
    place.get("cat.jpg")
    signed = place.calls["sign"]
    member = small_site.member(place.storage.project_id)

    assert place.get("cat.jpg", client=member).status == 303
    assert place.get("cat.jpg", client=small_site.member()).status == 404
    assert place.calls["sign"] == signed


def test_a_head_is_answered_here(place: Place) -> None:
    """What is signed is a GET: the store would refuse a HEAD of it."""
    storage = place.storage
    signed = place.calls["sign"]
    target = proxy_url("", "projects", storage.project_id, storage.uri("cat.jpg"))
    answer = place.client.send("HEAD", target)

    assert (answer.status, answer.headers["content-length"]) == (200, str(len(BODY)))
    assert answer.headers["content-type"] == "image/jpeg"
    assert place.calls["sign"] == signed


def test_what_cannot_be_signed_is_streamed(open_place: OpenPlace) -> None:
    """Files have no URL to send a browser to."""
    place = open_place("local", presign=True)
    place.put("cat.jpg", BODY)
    answer = place.get("cat.jpg")

    assert (answer.status, answer.body) == (200, BODY)
    assert place.calls["sign"] == 0
