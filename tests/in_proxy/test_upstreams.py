"""What clients get of stores that misbehave, and what is left behind: a line, a number, nothing."""

from __future__ import annotations

import http.client
import json
import logging
import os
import queue
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from prometheus_client.parser import text_string_to_metric_families

from labelport.catalog import Catalog
from labelport.model import Storage
from labelport.resolving import proxy_url
from labelport.stores._http import HttpStore
from labelport.stores.aws_credentials import AwsCredentials, FixedCredentials
from labelport.stores.s3 import S3Dialect
from labelport_proxy import metrics, recording
from labelport_proxy.app import transport_of
from labelport_proxy.logs import JsonFormatter
from loopback import Answer, reply, reset, stall
from proxies import project, proxy, settings, somebody, storage
from upstreams import Got, Upstream, ask, close, drip, raw, upstream_server

BODY = bytes(range(256)) * 4
META = {"ETag": '"v1"', "Content-Type": "image/png"}
SECONDS = 0.5  #: each limit of the proxy under test
MIN_RATE = 16 << 10
SECRETS = ("s3cr3t", "t0ken", "AKIDEXAMPLE", "X-Amz-")


class Lines(logging.Handler):
    """The log of the proxy, as it is written."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonFormatter())
        self._lines: queue.Queue[dict[str, Any]] = queue.Queue()

    def emit(self, record: logging.LogRecord) -> None:
        # Before anything is scrubbed from it: what is not there cannot slip through.
        text = record.getMessage() + str(getattr(record, "fields", ""))
        line = json.loads(self.format(record))
        self._lines.put(line | {"leaks": [secret for secret in SECRETS if secret in text]})

    def until_request(self) -> list[dict[str, Any]]:
        """The lines up to a request's own, which is the last."""
        lines = [self._lines.get(timeout=10)]
        while lines[-1]["message"] != "request":
            lines.append(self._lines.get(timeout=10))
        return lines


@dataclass(frozen=True)
class Place:
    """A proxy of a bucket that misbehaves."""

    url: str
    project_id: int
    headers: dict[str, str]
    upstream: Upstream

    def target(self, key: str) -> str:
        return proxy_url("", "projects", self.project_id, f"s3://bucket/{key}")

    def ask(self, key: str, method: str = "GET", **headers: str) -> Got:
        return ask(self.url, self.target(key), self.headers | headers, method=method)


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with upstream_server() as server:
        yield server


@pytest.fixture(scope="module")
def opened(
    upstream: Upstream, sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    path = shutil.copy(sqlite_template, tmp_path_factory.mktemp("catalog") / "catalog.db")
    changes = {"timeout": SECONDS, "head_timeout": SECONDS, "min_rate": MIN_RATE}
    transport = transport_of(settings(**changes))
    credentials = FixedCredentials(AwsCredentials("AKIDEXAMPLE", "s3cr3t", "t0ken"))

    def store(opening: Storage) -> HttpStore:
        dialect = S3Dialect(opening.bucket, credentials, endpoint=upstream.url)
        narrow = opening.bucket == "narrow"
        return HttpStore(dialect, replace(transport, connections=1) if narrow else transport)

    with Catalog(f"sqlite:///{path}") as catalog, pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            recording, "_MOMENT_SECONDS", 0
        )  # so that no test hears of another's requests
        project_id = project(catalog, "Cats")
        for bucket in ("bucket", "narrow"):
            more = {"serve_any_key": True, "presign": False}
            storage(catalog, project_id, bucket, f"s3://{bucket}", **more)
        member = somebody(catalog, "member@example.org", project_id)
        with proxy(Catalog(f"sqlite:///{path}"), store, **changes) as running:
            headers = {"Authorization": f"Bearer {member.secret}"}
            place = Place(running.url, project_id, headers, upstream)
            place.ask(upstream.will(reply(200, BODY, META)))  # whatever opens once is open now
            assert upstream.left_alone()
            yield place


@pytest.fixture
def lines() -> Iterator[Lines]:
    logger = logging.getLogger("labelport_proxy")
    handler, level = Lines(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.fixture
def place(opened: Place) -> Iterator[Place]:
    """After each test the proxy serves, and has nothing open that it had not before."""
    before = open_files()
    yield opened

    got = opened.ask(opened.upstream.will(reply(200, BODY, META)))
    assert (got.status, got.body, got.whole) == (200, BODY, True)
    assert opened.upstream.left_alone()
    assert eventually(lambda: number("labelport_proxy_open_streams") == 0)
    assert eventually(lambda: open_files() <= before), (open_files(), before)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def eventually(holds: Callable[[], bool], seconds: float = 5) -> bool:
    """Whether it comes true, for what tells nobody when it does."""
    deadline = time.monotonic() + seconds
    while not (held := holds()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return held


def number(name: str, **labels: str) -> float:
    """What the proxy has counted so far."""
    families = text_string_to_metric_families(metrics.exposed().decode())
    samples = (sample for family in families for sample in family.samples)
    return sum(s.value for s in samples if s.name == name and labels.items() <= s.labels.items())


def part(start: int, stop: int, body: bytes | None = None, size: int = len(BODY)) -> Answer:
    """A 206 of ``start <= byte < stop``."""
    content_range = f"bytes {start}-{stop - 1}/{size}"
    content = BODY[start:stop] if body is None else body
    return reply(206, content, META | {"Content-Range": content_range})


def nothing_of_it(then: Answer, *, ranged: bool = False) -> Answer:
    """The head of an answer, and then something else than its body."""
    content_range = f"bytes 0-{len(BODY) - 1}/{len(BODY)}" if ranged else ""
    head = META | {"Content-Length": str(len(BODY)), "Content-Range": content_range}
    return reply(206 if ranged else 200, BODY, head, sent=0, then=then)


def refusal(status: int, code: str = "", **headers: str) -> Answer:
    """An error document that repeats a signed URL, as some servers do."""
    message = "GET /bucket/key?X-Amz-Signature=s3cr3t"
    body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return reply(status, body.encode(), {n.replace("_", "-"): v for n, v in headers.items()})


HEAD = b'HTTP/1.1 200 OK\r\nETag: "v1"\r\n'


@pytest.mark.parametrize(
    ("answer", "asks", "status", "word", "error"),
    [
        (stall, {}, 504, "store_timeout", "StoreTimeout"),
        (raw(HEAD, then=stall), {}, 504, "store_timeout", "StoreTimeout"),
        (
            raw(b"HTTP/1.1 100 Continue\r\n\r\n", then=stall),
            {},
            504,
            "store_timeout",
            "StoreTimeout",
        ),
        (reset, {}, 502, "store_unavailable", "StoreUnavailable"),
        (close, {}, 502, "store_unavailable", "StoreUnavailable"),
        (raw(HEAD, then=close), {}, 502, "store_unavailable", "StoreUnavailable"),
        (raw(HEAD, then=reset), {}, 502, "store_unavailable", "StoreUnavailable"),
        (raw(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), {}, 502, "store_unavailable", "StoreUnavailable"),
        (raw(b"\x16\x03\x01" + bytes(70_000)), {}, 502, "store_unavailable", "StoreUnavailable"),
        (
            raw(HEAD, b"X-Long: " + b"x" * 70_000 + b"\r\n\r\n"),
            {},
            502,
            "store_unavailable",
            "StoreUnavailable",
        ),
        (
            raw(HEAD, b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
            {},
            502,
            "store_unavailable",
            "StoreUnavailable",
        ),
        (
            raw(HEAD, b"Content-Length: -3\r\n\r\nabc"),
            {},
            502,
            "store_unavailable",
            "StoreUnavailable",
        ),
        (
            raw(HEAD, b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
            {},
            502,
            "store_error",
            "StoreError",
        ),
        (raw(HEAD, b"\r\nabc", then=close), {}, 502, "store_error", "StoreError"),
        (nothing_of_it(stall), {}, 504, "store_timeout", "StoreTimeout"),
        (nothing_of_it(close), {}, 502, "store_unavailable", "StoreUnavailable"),
        (nothing_of_it(reset), {}, 502, "store_unavailable", "StoreUnavailable"),
        (
            nothing_of_it(stall, ranged=True),
            {"Range": "bytes=0-"},
            504,
            "store_timeout",
            "StoreTimeout",
        ),
        (reply(204, headers={"Content-Length": ""}), {}, 502, "store_error", "StoreError"),
        (refusal(304), {}, 502, "store_error", "StoreError"),
        (refusal(500, "InternalError"), {}, 502, "store_unavailable", "StoreUnavailable"),
        (refusal(503, "SlowDown"), {}, 503, "store_busy", "StoreBusy"),
        (refusal(503, "SlowDown", Retry_After="7"), {}, 503, "store_busy", "StoreBusy"),
        (refusal(429), {}, 503, "store_busy", "StoreBusy"),
        (refusal(403, "AccessDenied"), {}, 502, "store_denied", "AccessDenied"),
        (refusal(403, "SignatureDoesNotMatch"), {}, 502, "store_denied", "AccessDenied"),
        (refusal(400, "InvalidRequest"), {}, 502, "store_error", "StoreError"),
        (refusal(404, "NoSuchKey"), {}, 404, "object_not_found", None),
        (refusal(404, "NoSuchBucket"), {}, 502, "bucket_not_found", "BucketNotFound"),
        (part(0, 10), {"Range": "bytes=10-19"}, 502, "store_error", "StoreError"),
        (part(11, 20), {"Range": "bytes=10-19"}, 502, "store_error", "StoreError"),
        (
            reply(206, BODY[10:20], META),
            {"Range": "bytes=10-19"},
            502,
            "store_error",
            "StoreError",
        ),
        (
            reply(206, BODY[10:20], META | {"Content-Range": "bytes 10-19/*"}),
            {"Range": "bytes=10-19"},
            502,
            "store_error",
            "StoreError",
        ),
        (
            reply(206, b"--x\r\n", META | {"Content-Type": "multipart/byteranges; boundary=x"}),
            {"Range": "bytes=10-19"},
            502,
            "store_error",
            "StoreError",
        ),
        (reply(200, BODY, META), {"Range": "bytes=10-19"}, 502, "store_error", "StoreError"),
    ],
    ids=[
        "stall before the head",
        "stall in the head",
        "stall after an interim answer",
        "reset",
        "close without a head",
        "close in the head",
        "reset in the head",
        "another protocol",
        "binary garbage",
        "huge head",
        "two lengths",
        "negative length",
        "chunked, of unknown length",
        "no length at all",
        "stall after the head",
        "truncation after the head",
        "reset after the head",
        "stall after the head of a range",
        "204",
        "304 that nobody asked for",
        "500",
        "SlowDown",
        "SlowDown with Retry-After",
        "429",
        "403",
        "403 for the signature",
        "400",
        "404",
        "404 of the bucket",
        "another range",
        "a range that begins late",
        "a range that is not told",
        "a range of unknown size",
        "several ranges",
        "range ignored",
    ],
)
def test_a_store_that_fails_before_the_body(
    place: Place,
    lines: Lines,
    answer: Answer,
    asks: dict[str, str],
    status: int,
    word: str,
    error: str | None,
) -> None:
    """The client gets the error's status and word; log and metrics its class; and no secret."""
    key = place.upstream.will(answer)
    counted = number("labelport_proxy_upstream_errors_total", error=error or "")
    total = number("labelport_proxy_upstream_errors_total")

    got = place.ask(key, **asks)
    *before, line = lines.until_request()

    assert (got.status, json.loads(got.body)["error"], got.whole) == (status, word, True)
    assert got.headers["cache-control"] == "no-store"
    assert (line["status"], line["outcome"], line.get("error")) == (status, word, error)
    assert not any(each["leaks"] for each in (*before, line))
    assert not any(secret in got.body.decode() for secret in SECRETS)
    errors = 1 if error else 0
    assert number("labelport_proxy_upstream_errors_total") == total + errors
    if error:
        assert number("labelport_proxy_upstream_errors_total", error=error) == counted + 1
        assert [each["error"] for each in before if "error" in each] == [error]
        assert before[-1]["request_id"] == line["request_id"] == got.headers["x-request-id"]
    assert len(place.upstream.heard[key]) == 1  # a client that waits is not made to wait longer


@pytest.mark.parametrize(
    ("asked_for", "told"), [("7", "7"), ("", "1")], ids=["as the store says", "soon if it does not"]
)
def test_a_busy_store_tells_when_to_come_back(place: Place, asked_for: str, told: str) -> None:
    got = place.ask(place.upstream.will(refusal(503, "SlowDown", Retry_After=asked_for)))

    assert (got.status, got.headers["retry-after"]) == (503, told)


def test_a_store_has_its_time_and_no_more(place: Place) -> None:
    begun = time.monotonic()

    assert place.ask(place.upstream.will(stall)).status == 504
    assert SECONDS <= time.monotonic() - begun < SECONDS + 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(place: Place, status: int) -> None:
    """A store that could send us elsewhere could send us to the cloud's metadata service."""
    elsewhere = place.upstream.will(reply(200, BODY, META))
    location = f"{place.upstream.url}/bucket/{elsewhere}"

    got = place.ask(place.upstream.will(refusal(status, Location=location)))

    assert (got.status, json.loads(got.body)["error"]) == (502, "store_error")
    assert "location" not in got.headers
    assert place.upstream.heard[elsewhere] == []


def test_a_bucket_of_another_region_is_the_operators_to_put_right(
    place: Place, lines: Lines
) -> None:
    answer = refusal(301, "PermanentRedirect", x_amz_bucket_region="eu-west-1")

    got = place.ask(place.upstream.will(answer))
    before, _ = lines.until_request()

    assert (got.status, json.loads(got.body)["error"]) == (502, "storage_misconfigured")
    assert "eu-west-1" in before["message"]
    assert "eu-west-1" not in got.body.decode()


@pytest.mark.parametrize("asks", [{}, {"Range": "bytes=0-"}], ids=["whole", "ranged"])
@pytest.mark.parametrize(
    ("sent", "then", "length", "error"),
    [
        (300, stall, len(BODY), "StoreTimeout"),
        (300, close, len(BODY), "StoreUnavailable"),
        (len(BODY) - 1, close, len(BODY), "StoreUnavailable"),
        (len(BODY), close, len(BODY) + 1, "StoreUnavailable"),
    ],
    ids=["stall", "truncation", "truncation of one byte", "a length of one more"],
)
def test_a_body_that_breaks_off_is_never_ended_as_if_it_were_whole(
    place: Place,
    lines: Lines,
    sent: int,
    then: Answer,
    length: int,
    error: str,
    asks: dict[str, str],
) -> None:
    """What came goes on to the client, and then the connection breaks."""
    content_range = f"bytes 0-{length - 1}/{length}" if asks else ""
    headers = META | {"Content-Length": str(length), "Content-Range": content_range}
    key = place.upstream.will(reply(206 if asks else 200, BODY, headers, sent=sent, then=then))
    counted = number("labelport_proxy_upstream_errors_total", error=error)
    cut = number("labelport_proxy_truncations_total", reason="store_failed")

    got = place.ask(key, **asks)
    *before, line = lines.until_request()

    assert (got.status, got.body, got.whole) == (206 if asks else 200, BODY[:sent], False)
    assert got.headers["content-length"] == str(length)
    assert (line["outcome"], line["error"], line["bytes"]) == ("truncated", error, sent)
    assert before[-1]["error"] == error
    assert before[-1]["request_id"] == line["request_id"] == got.headers["x-request-id"]
    assert not any(each["leaks"] for each in (*before, line))
    assert number("labelport_proxy_upstream_errors_total", error=error) == counted + 1
    assert number("labelport_proxy_truncations_total", reason="store_failed") == cut + 1
    assert len(place.upstream.heard[key]) == 1


def test_a_store_that_resets_amid_the_body_breaks_the_clients_connection(
    place: Place, lines: Lines
) -> None:
    """How much of it has gone on by then, is not told."""
    got = place.ask(place.upstream.will(reply(200, BODY, META, sent=300, then=reset)))
    *_, line = lines.until_request()

    assert not got.whole
    assert got.body == BODY[: len(got.body)]
    assert (line["outcome"], line["error"]) == ("truncated", "StoreUnavailable")


@pytest.mark.parametrize(
    ("answer", "asks", "status", "body"),
    [
        (raw(HEAD, b"Content-Length: 3\r\n\r\nabcdef"), {}, 200, b"abc"),
        (reply(200, BODY, META | {"Content-Length": "5"}), {}, 200, BODY[:5]),
        (part(0, 5, BODY), {"Range": "bytes=0-4"}, 206, BODY[:5]),
        (part(0, 500), {"Range": "bytes=0-4"}, 206, BODY[:5]),
        (reply(200, BODY, META), {"Range": "bytes=0-4"}, 206, BODY[:5]),
    ],
    ids=[
        "beyond the length",
        "far beyond the length",
        "beyond the range",
        "a longer range",
        "range from the start ignored",
    ],
)
def test_more_bytes_than_were_asked_for_end_with_us(
    place: Place, answer: Answer, asks: dict[str, str], status: int, body: bytes
) -> None:
    """The client's connection can be used again; the store's is closed."""
    connection = http.client.HTTPConnection(urlsplit(place.url).netloc, timeout=10)
    target = place.target(place.upstream.will(answer))
    for _ in range(2):
        connection.request("GET", target, headers=place.headers | asks)
        got = connection.getresponse()

        assert (got.status, got.headers["Content-Length"]) == (status, str(len(body)))
        assert got.read() == body
        assert place.upstream.left_alone()
    connection.close()


def test_a_dripping_store_is_waited_for_if_it_drips_enough(place: Place, lines: Lines) -> None:
    """A whole answer may take longer than any limit."""
    piece = bytes(16 << 10)
    head = META | {"Content-Length": str(6 * len(piece))}

    got = place.ask(place.upstream.will(reply(200, b"", head, then=drip(piece, 6, 0.3))))
    *_, line = lines.until_request()

    assert (got.status, len(got.body), got.whole) == (200, 6 * len(piece), True)
    assert line["outcome"] == "full"
    assert line["seconds"] > 3 * SECONDS


def test_a_whole_answer_must_not_crawl(place: Place, lines: Lines) -> None:
    """It never stands still, and yet comes too slowly."""
    piece = bytes(256)
    head = META | {"Content-Length": str(100 * len(piece))}

    got = place.ask(place.upstream.will(reply(200, b"", head, then=drip(piece, 100, 0.1))))
    *_, line = lines.until_request()

    assert not got.whole
    assert (line["outcome"], line["error"]) == ("truncated", "too_slow")
    assert 3 * SECONDS < line["seconds"] < 3 * SECONDS + 1.5


def test_a_ranged_answer_has_a_time_limit(place: Place, lines: Lines) -> None:
    """However fast it comes: a player that wants the rest asks for it."""
    piece = bytes(16 << 10)
    size = 100 * len(piece)
    head = META | {"Content-Length": str(size), "Content-Range": f"bytes 0-{size - 1}/{size}"}
    cut = number("labelport_proxy_truncations_total", reason="time_limit")

    key = place.upstream.will(reply(206, b"", head, then=drip(piece, 100, 0.05)))
    got = place.ask(key, Range="bytes=0-")
    *_, line = lines.until_request()

    assert (got.status, got.whole) == (206, False)
    assert 0 < len(got.body) < size
    assert (line["outcome"], line["error"]) == ("truncated", "time_limit")
    assert SECONDS < line["seconds"] < SECONDS + 1.5
    assert number("labelport_proxy_truncations_total", reason="time_limit") == cut + 1


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_kept_connection_that_the_store_has_closed_is_replaced(
    place: Place, lines: Lines, method: str
) -> None:
    """Either may be first, the close or the next request: the client sees nothing of it."""
    kept = reply(200, BODY, META | {"Connection": ""})
    key = place.upstream.will(kept, close, reply(200, BODY, META))

    first, second = place.ask(key), place.ask(key, method)

    assert (first.status, first.body) == (200, BODY)
    assert (second.status, second.body) == (200, BODY if method == "GET" else b"")
    assert len(place.upstream.heard[key]) == 3
    assert all("error" not in line for line in lines.until_request() + lines.until_request())


def test_a_store_that_closes_every_connection_is_asked_twice_at_most(place: Place) -> None:
    kept = reply(200, BODY, META | {"Connection": ""})
    key = place.upstream.will(kept, close)

    assert [place.ask(key).status, place.ask(key).status] == [200, 502]
    assert len(place.upstream.heard[key]) == 3


def test_an_object_without_an_etag_is_served_without_one(place: Place) -> None:
    key = place.upstream.will(reply(200, BODY, {"Content-Type": "image/png"}))
    part_key = place.upstream.will(
        reply(206, BODY[:5], {"Content-Range": f"bytes 0-4/{len(BODY)}"})
    )

    whole, some = place.ask(key), place.ask(part_key, Range="bytes=0-4")

    assert (whole.status, whole.body, whole.whole) == (200, BODY, True)
    assert (some.status, some.body, some.headers["content-range"]) == (
        206,
        BODY[:5],
        f"bytes 0-4/{len(BODY)}",
    )
    assert "etag" not in whole.headers | some.headers


def test_a_client_that_leaves_before_the_store_has_answered_leaves_nothing(
    place: Place, lines: Lines
) -> None:
    """The place's own checks are the test."""
    key = place.upstream.will(stall)
    connection = http.client.HTTPConnection(urlsplit(place.url).netloc, timeout=10)
    connection.request("GET", place.target(key), headers=place.headers)
    assert eventually(lambda: bool(place.upstream.heard[key]))

    connection.close()

    assert lines.until_request()[-1]["error"] == "StoreTimeout"


def test_nobody_waits_longer_for_a_free_connection_than_for_an_answer(place: Place) -> None:
    """Slow readers may hold all connections that are opened to a store."""
    piece = bytes(16 << 10)
    head = META | {"Content-Length": str(6 * len(piece))}
    key = place.upstream.will(reply(200, b"", head, then=drip(piece, 6, 0.3)), reply(200, BODY))
    target = proxy_url("", "projects", place.project_id, f"s3://narrow/{key}")
    connection = http.client.HTTPConnection(urlsplit(place.url).netloc, timeout=10)
    connection.request("GET", target, headers=place.headers)
    begun = time.monotonic()
    with closing(connection), connection.getresponse() as slow:
        got = ask(place.url, target, place.headers)

        assert got.status == 504
        assert json.loads(got.body)["error"] == "store_timeout"
        assert SECONDS <= time.monotonic() - begun < SECONDS + 1
        assert len(slow.read()) == 6 * len(piece)
