"""What an HTTP store makes of servers and networks that misbehave."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from typing import Any

import pytest

from labelport.errors import (
    AccessDenied,
    BucketNotFound,
    ConfigurationError,
    LabelportError,
    ObjectChanged,
    ObjectNotFound,
    StoreBusy,
    StoreError,
    StoreTimeout,
    StoreUnavailable,
)
from labelport.model import ByteRange, KeyRange, ObjectMeta
from labelport.stores._http import HttpStore, Transport
from labelport.stores._retrying import RetryPolicy
from labelport.stores.aws_credentials import (
    AwsCredentials,
    BlockingCredentials,
    CredentialSource,
    FixedCredentials,
)
from labelport.stores.s3 import S3Dialect
from loopback import Answer, Loopback, loopback, reply, reset, stall

SECRET = "s3cr3t-that-nobody-may-see"
TOKEN = "t0ken-that-nobody-may-see"
CREDENTIALS = AwsCredentials("AKIDEXAMPLE", SECRET, TOKEN)
BODY = bytes(range(256)) * 40
META = {"ETag": '"v1"', "Content-Type": "image/png"}


LISTING = b"<ListBucketResult><IsTruncated>false</IsTruncated>%s</ListBucketResult>"


class Slept(list[float]):
    """A clock that only notes how long it was asked to wait."""

    async def __call__(self, seconds: float) -> None:
        self.append(seconds)


StoreOn = Callable[..., AbstractAsyncContextManager[tuple[HttpStore, Loopback]]]


@pytest.fixture(params=[False, True], ids=["aiohttp", "lean"])
def store_on(request: pytest.FixtureRequest) -> StoreOn:
    """`store_with`, over each of the clients."""
    return partial(store_with, lean=request.param)


@asynccontextmanager
async def store_with(
    *answers: Answer,
    lean: bool,
    source: CredentialSource | None = None,
    slept: Slept | None = None,
    **dialect: Any,
) -> AsyncIterator[tuple[HttpStore, Loopback]]:
    """A store whose server gives *answers*, and what that server hears."""
    async with loopback(answers) as server:
        store = HttpStore(
            S3Dialect(
                "bucket", source or FixedCredentials(CREDENTIALS), endpoint=server.url, **dialect
            ),
            Transport(
                lean=lean,
                head_seconds=0.2,
                read_seconds=0.2,
                retry=RetryPolicy(attempts=4, sleep=Slept() if slept is None else slept),
            ),
        )
        try:
            yield store, server
        finally:
            await store.close()


def refusal(status: int, code: str, message: str = "", **headers: str) -> Answer:
    """An error document."""
    body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return reply(status, body.encode(), {n.replace("_", "-"): v for n, v in headers.items()})


def rest(start: int, stop: int = len(BODY), etag: str = "v1") -> Answer:
    """The part of the object that a range asks for."""
    content_range = f"bytes {start}-{stop - 1}/{len(BODY)}"
    return reply(
        206, BODY[start:stop], META | {"ETag": f'"{etag}"', "Content-Range": content_range}
    )


def listing(keys: Iterable[str], token: str = "", extra: str = "") -> Answer:
    """A page of a listing."""
    entries = "".join(
        f"<Contents><Key>{key}</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified>"
        "<ETag>&quot;e&quot;</ETag><Size>3</Size></Contents>"
        for key in keys
    )
    more = f"<NextContinuationToken>{token}</NextContinuationToken>" if token else ""
    truncated = "true" if token else "false"
    return reply(
        200,
        f'<?xml version="1.0"?>{extra}<ListBucketResult xmlns="http://s3.amazonaws.com/doc/">'
        f"<IsTruncated>{truncated}</IsTruncated>{entries}{more}</ListBucketResult>".encode(),
    )


async def received(store: HttpStore, byte_range: ByteRange | None = None) -> bytes:
    """Everything a stream gives."""
    async with store.open("key", byte_range) as stream:
        return b"".join([chunk async for chunk in stream])


async def listed(store: HttpStore, keys: KeyRange = KeyRange()) -> list[str]:  # noqa: B008
    return [o.key async for page in store.pages("", keys) for o in page.objects]


@pytest.mark.parametrize(
    "answer",
    [
        refusal(503, "SlowDown"),
        refusal(500, "InternalError"),
        refusal(400, "RequestTimeout"),
        reply(408),
        reply(429),
        reply(502, b"<html>Bad gateway</html>"),
        reply(504),
        reset,
        reply(200, BODY, META, then=reset, sent=0),
    ],
    ids=["503", "500", "400", "408", "429", "502", "504", "reset", "reset after headers"],
)
def test_what_may_pass_is_tried_again(store_on: StoreOn, answer: Answer) -> None:
    slept = Slept()

    async def story() -> None:
        async with store_on(answer, reply(200, BODY, META), slept=slept) as (store, server):
            assert (await store.read("key", max_bytes=len(BODY)))[0] == BODY
            assert len(server.heard) == 2

    asyncio.run(story())

    assert len(slept) == 1
    assert 0.1 <= slept[0] <= 0.2


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (refusal(403, "AccessDenied"), AccessDenied),
        (refusal(404, "NoSuchKey"), ObjectNotFound),
        (refusal(501, "NotImplemented"), StoreError),
        (refusal(400, "InvalidArgument"), StoreError),
    ],
    ids=["403", "404", "501", "400"],
)
def test_what_will_not_pass_is_tried_once(
    store_on: StoreOn, answer: Answer, error: type[LabelportError]
) -> None:
    async def story() -> None:
        async with store_on(answer) as (store, server):
            with pytest.raises(error) as caught:
                await store.read("key", max_bytes=1)

            assert type(caught.value) is error
            assert len(server.heard) == 1

    asyncio.run(story())


def test_waiting_grows_until_the_attempts_are_used_up(store_on: StoreOn) -> None:
    slept = Slept()

    async def story() -> None:
        async with store_on(*[reply(503)] * 9, slept=slept) as (store, server):
            with pytest.raises(StoreUnavailable, match="s3://bucket/key: 503, 4 times") as caught:
                await store.read("key", max_bytes=9)

            assert type(caught.value) is StoreBusy
            assert len(server.heard) == 4

    asyncio.run(story())

    assert [0.1 * 2**n <= waited <= 0.2 * 2**n for n, waited in enumerate(slept)] == [True] * 3


@pytest.mark.parametrize(
    ("value", "at_least", "at_most"),
    [
        ("7", 7, 7),
        (format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True), 60, 60),
        (format_datetime(datetime.now(UTC) - timedelta(hours=1), usegmt=True), 0, 0),
        ("86400", 60, 60),
        ("soon", 0.1, 0.2),
    ],
    ids=["seconds", "date", "past date", "too long", "unreadable"],
)
def test_a_store_says_how_long_to_wait(
    store_on: StoreOn, value: str, at_least: float, at_most: float
) -> None:
    slept = Slept()

    async def story() -> None:
        busy = refusal(503, "SlowDown", Retry_After=value)
        async with store_on(busy, reply(204), slept=slept) as (store, _):
            await store.delete("key")

    asyncio.run(story())

    assert len(slept) == 1
    assert at_least <= slept[0] <= at_most


@pytest.mark.parametrize("fails", [reset, stall, None], ids=["reset", "stall", "early end"])
def test_a_broken_stream_goes_on_where_it_broke(store_on: StoreOn, fails: Any) -> None:
    async def story() -> None:
        whole = reply(200, BODY, META, sent=5000, then=fails)
        again = reply(
            206,
            BODY[5000:],
            META | {"Content-Range": f"bytes 5000-{len(BODY) - 1}/{len(BODY)}"},
            sent=1000,
            then=fails,
        )
        async with store_on(whole, again, rest(6000)) as (store, server):
            assert await received(store) == BODY
            assert [h.headers.get("range") for h in server.heard] == [
                None,
                f"bytes=5000-{len(BODY) - 1}",
                f"bytes=6000-{len(BODY) - 1}",
            ]
            assert [h.headers.get("if-match") for h in server.heard] == [None, '"v1"', '"v1"']

    asyncio.run(story())


def test_a_broken_range_goes_on_to_its_own_end(store_on: StoreOn) -> None:
    async def story() -> None:
        head = {"Content-Range": f"bytes 100-299/{len(BODY)}"}
        part = reply(206, BODY[100:300], META | head, sent=50, then=reset)
        async with store_on(part, rest(150, 300)) as (store, server):
            assert await received(store, ByteRange(100, 300)) == BODY[100:300]
            assert [h.headers["range"] for h in server.heard] == ["bytes=100-299", "bytes=150-299"]

    asyncio.run(story())


@pytest.mark.parametrize(
    "answer",
    [refusal(412, "PreconditionFailed"), rest(5000, etag="v2")],
    ids=["412", "If-Match ignored"],
)
def test_a_stream_never_mixes_two_versions(store_on: StoreOn, answer: Answer) -> None:
    async def story() -> None:
        whole = reply(200, BODY, META, sent=5000, then=reset)
        async with store_on(whole, answer) as (store, _):
            with pytest.raises(ObjectChanged):
                await received(store)

    asyncio.run(story())


def test_a_stream_never_repeats_bytes_when_ranges_are_ignored(store_on: StoreOn) -> None:
    async def story() -> None:
        whole = reply(200, BODY, META, sent=5000, then=reset)
        async with store_on(whole, reply(200, BODY, META)) as (store, _):
            with pytest.raises(StoreError, match="ignores ranges"):
                await received(store)

    asyncio.run(story())


def test_another_range_than_the_one_asked_for_is_refused(store_on: StoreOn) -> None:
    async def story() -> None:
        async with store_on(rest(4, 10)) as (store, _):
            with pytest.raises(StoreError, match="another range"):
                await received(store, ByteRange(5, 10))

    asyncio.run(story())


def test_a_stream_that_gets_nowhere_ends(store_on: StoreOn) -> None:
    async def story() -> None:
        whole = reply(200, BODY, META, sent=5000, then=reset)
        stuck = reply(
            206,
            BODY[5000:],
            META | {"Content-Range": f"bytes 5000-{len(BODY) - 1}/{len(BODY)}"},
            sent=0,
            then=reset,
        )
        async with store_on(whole, *[stuck] * 20) as (store, server):
            with pytest.raises(StoreUnavailable, match="5000"):
                await received(store)

            assert len(server.heard) == 4

    asyncio.run(story())


@pytest.mark.parametrize(
    ("answer", "kind", "after_seconds"),
    [
        (refusal(503, "SlowDown", Retry_After="7"), StoreBusy, 7),
        (refusal(400, "SlowDown"), StoreBusy, None),
        (reply(429), StoreBusy, None),
        (reply(500), StoreUnavailable, None),
        (reset, StoreUnavailable, None),
        (stall, StoreTimeout, None),
    ],
    ids=["Retry-After", "SlowDown", "429", "500", "reset", "stall"],
)
def test_the_last_failure_is_the_one_that_counts(
    store_on: StoreOn, answer: Answer, kind: type[StoreUnavailable], after_seconds: float | None
) -> None:
    async def story() -> None:
        async with store_on(*[reply(500)] * 3, answer) as (store, _):
            with pytest.raises(StoreUnavailable, match=r", 4 times$") as caught:
                await store.read("key", max_bytes=9)

            assert type(caught.value) is kind
            assert caught.value.after_seconds == after_seconds

    asyncio.run(story())


def test_a_stream_that_breaks_off_for_want_of_time_says_so(store_on: StoreOn) -> None:
    async def story() -> None:
        whole = reply(200, BODY, META, sent=5000, then=stall)
        again = {"Content-Range": f"bytes 5000-{len(BODY) - 1}/{len(BODY)}"}
        stuck = reply(206, BODY[5000:], META | again, sent=0, then=stall)
        async with store_on(whole, *[stuck] * 3) as (store, _):
            with pytest.raises(StoreTimeout, match="at byte 5000"):
                await received(store)

    asyncio.run(story())


@pytest.mark.parametrize("sent", [None, 5000], ids=["before the head", "in the body"])
def test_a_cancelled_read_closes_its_connection(store_on: StoreOn, sent: int | None) -> None:
    async def story() -> None:
        reached, closed = asyncio.Event(), asyncio.Event()

        async def drip(writer: asyncio.StreamWriter) -> None:
            reached.set()
            while not writer.transport.is_closing():
                writer.write(b"H")
                await asyncio.sleep(0.01)
            closed.set()

        answer = drip if sent is None else reply(200, BODY, META, sent=sent, then=drip)
        async with store_on(answer) as (store, _):
            task = asyncio.create_task(received(store))
            await reached.wait()
            task.cancel()

            async with asyncio.timeout(2):
                await closed.wait()

    asyncio.run(story())


def test_a_refusal_in_chunks_is_understood(store_on: StoreOn) -> None:
    """S3 sends most of its error documents so."""
    error = b"<Error><Code>NoSuchBucket</Code></Error>"
    chunked = {"Content-Length": "", "Transfer-Encoding": "chunked"}

    async def story() -> None:
        async with store_on(
            reply(404, b"%x\r\n%s\r\n0\r\n\r\n" % (len(error), error), chunked)
        ) as (
            store,
            _,
        ):
            with pytest.raises(BucketNotFound):
                await store.read("key", max_bytes=9)

    asyncio.run(story())


def test_an_object_in_chunks_is_refused(store_on: StoreOn) -> None:
    chunked = META | {"Content-Length": "", "Transfer-Encoding": "chunked"}

    async def story() -> None:
        async with store_on(reply(200, b"3\r\nabc\r\n0\r\n\r\n", chunked)) as (store, _):
            with pytest.raises(StoreError, match="does not tell how long"):
                await received(store)

    asyncio.run(story())


def test_one_attempt_is_not_counted() -> None:
    async def story() -> None:
        async with loopback([reply(503)]) as server:
            store = HttpStore(
                S3Dialect("bucket", FixedCredentials(None), endpoint=server.url),
                Transport(lean=True, retry=RetryPolicy(attempts=1)),
            )
            with pytest.raises(StoreBusy, match=r"s3://bucket/key: 503$"):
                await store.head("key")
            await store.close()

    asyncio.run(story())


def test_what_the_store_says_of_an_object(store_on: StoreOn) -> None:
    headers = {
        "ETag": '"v1"',
        "Content-Type": "text/plain; charset=utf-8",
        "Content-Encoding": "gzip",
        "Last-Modified": "Sun, 06 Nov 1994 08:49:37 GMT",
        "Content-Length": "7",
    }
    modified = datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC)
    wanted = ObjectMeta("key", 7, "v1", modified, "text/plain; charset=utf-8", "gzip")

    async def story() -> None:
        old = headers | {"Last-Modified": "Sunday, 06-Nov-94 08:49:37 GMT"}
        bad = headers | {"Last-Modified": "Sun, 06 Foo 1994 08:49:37 GMT"}
        async with store_on(*(reply(200, b"", h) for h in (headers, old, bad))) as (store, _):
            assert await store.head("key") == wanted
            assert await store.head("key") == wanted
            assert await store.head("key") == wanted._replace(modified=None)

    asyncio.run(story())


def test_a_server_that_stalls_is_unavailable(store_on: StoreOn) -> None:
    async def story() -> None:
        async with store_on(*[stall] * 9) as (store, server):
            with pytest.raises(StoreTimeout):
                await store.head("key")

            assert len(server.heard) == 4

    asyncio.run(story())


def test_a_body_without_a_length_is_refused(store_on: StoreOn) -> None:
    async def story() -> None:
        endless = reply(200, BODY, META | {"Content-Length": ""})
        async with store_on(endless) as (store, _):
            with pytest.raises(StoreError, match="how long"):
                await received(store)

    asyncio.run(story())


def test_a_page_that_breaks_off_is_asked_for_again(store_on: StoreOn) -> None:
    async def story() -> None:
        broken = reply(200, b"<ListBucketResult><Contents><Key>a", sent=20, then=reset)
        async with store_on(broken, listing(["a", "b"])) as (store, server):
            assert await listed(store) == ["a", "b"]
            assert len(server.heard) == 2

    asyncio.run(story())


@pytest.mark.parametrize(
    "answer",
    [
        reply(200, b"<html>Please log in</html>"),
        reply(200, b"{}"),
        reply(200, b""),
        reply(200, b"<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>"),
        reply(200, b"<ListBucketResult><Contents><Key>a</Key></Contents></ListBucketResult>"),
        listing(["a"], extra='<!DOCTYPE x [<!ENTITY a "aaaa">]>'),
    ],
    ids=["another document", "no XML", "empty", "no token", "half an entry", "document type"],
)
def test_garbage_is_no_listing(store_on: StoreOn, answer: Answer) -> None:
    async def story() -> None:
        async with store_on(*[answer] * 4) as (store, _):
            with pytest.raises(StoreUnavailable, match="no listing"):
                await listed(store)

    asyncio.run(story())


def test_a_listing_that_does_not_advance_ends(store_on: StoreOn) -> None:
    async def story() -> None:
        async with store_on(*[listing(["a"], token="same")] * 3) as (store, server):
            with pytest.raises(StoreError, match="advance"):
                await listed(store)

            assert len(server.heard) == 2

    asyncio.run(story())


def test_an_ordered_listing_stops_at_the_end_of_its_range(store_on: StoreOn) -> None:
    async def story() -> None:
        async with store_on(listing(["b", "c"], token="1"), listing(["d", "e"], token="2")) as (
            store,
            server,
        ):
            assert await listed(store, KeyRange("a", "d")) == ["b", "c", "d"]
            assert server.heard[0].query["start-after"] == "a"
            assert server.heard[1].query["continuation-token"] == "1"
            assert "start-after" not in server.heard[1].query

    asyncio.run(story())


def test_a_listing_that_turns_out_unordered_starts_over(store_on: StoreOn) -> None:
    """Another listing of the same store may have found that out in the meantime."""
    page = reply(200, LISTING % b"", {"Server": "SeaweedFS 4"})

    async def story() -> None:
        async with store_on(*[page] * 4) as (store, server):
            await asyncio.gather(*[listed(store, KeyRange("a")) for _ in range(2)])

            keyed = ["start-after" in heard.query for heard in server.heard]
            assert sorted(keyed, reverse=True) == [True, True, False, False]

    asyncio.run(story())


def test_an_unordered_listing_is_read_to_its_end_and_filtered(store_on: StoreOn) -> None:
    async def story() -> None:
        async with store_on(listing(["z", "b"], token="1"), listing(["c", "a"]), ordered=False) as (
            store,
            server,
        ):
            assert await listed(store, KeyRange("a", "d")) == ["b", "c"]
            assert "start-after" not in server.heard[0].query

    asyncio.run(story())


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_are_not_followed(store_on: StoreOn, status: int) -> None:
    """A signed request must not go where its server sends it."""

    async def story() -> None:
        async with loopback([reply(200, b"stolen", META)]) as thief:
            away = refusal(status, "", Location=thief.url + "/bucket/key")
            async with store_on(away) as (store, _):
                with pytest.raises((StoreError, ConfigurationError)):
                    await store.read("key", max_bytes=9)

            assert thief.heard == []

    asyncio.run(story())


@pytest.mark.parametrize(
    "answer",
    [
        refusal(301, "PermanentRedirect", x_amz_bucket_region="eu-west-1"),
        reply(301, headers={"x-amz-bucket-region": "eu-west-1"}),
        reply(
            400,
            b"<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-1</Region></Error>",
        ),
    ],
    ids=["document", "header only", "malformed"],
)
def test_a_bucket_of_another_region_is_named(store_on: StoreOn, answer: Answer) -> None:
    async def story() -> None:
        async with store_on(answer) as (store, _):
            with pytest.raises(ConfigurationError, match="eu-west-1"):
                await store.read("key", max_bytes=9)

    asyncio.run(story())


def test_a_refusal_without_end_is_not_read_to_its_end(store_on: StoreOn) -> None:
    async def flood(writer: asyncio.StreamWriter) -> None:
        while not writer.transport.is_closing():
            writer.write(b"x" * 65536)
            await writer.drain()

    async def story() -> None:
        endless = reply(403, b"", {"Content-Length": str(1 << 40)}, then=flood)
        async with store_on(endless) as (store, _):
            with pytest.raises(AccessDenied):
                await store.read("key", max_bytes=9)

    asyncio.run(story())


def test_a_conditional_put_whose_answer_was_lost_has_succeeded(store_on: StoreOn) -> None:
    async def story() -> None:
        async with store_on(
            reset, refusal(412, "PreconditionFailed"), reply(200, b"mine", META)
        ) as (store, server):
            assert await store.put("key", b"mine", if_absent=True) == "v1"
            assert [h.method for h in server.heard] == ["PUT", "PUT", "GET"]
            assert [h.body for h in server.heard] == [b"mine", b"mine", b""]

    asyncio.run(story())


def test_a_conditional_put_that_lost_the_race_has_not(store_on: StoreOn) -> None:
    async def story() -> None:
        async with store_on(
            reset, refusal(412, "PreconditionFailed"), reply(200, b"ours", META)
        ) as (store, _):
            with pytest.raises(ObjectChanged):
                await store.put("key", b"mine", if_absent=True)

    asyncio.run(story())


def test_arguments_of_a_put_are_sent_and_signed(store_on: StoreOn) -> None:
    async def story() -> None:
        async with store_on(
            reply(200, b"", META),
            put_arguments={"x-amz-server-side-encryption": "aws:kms"},
            headers={"x-amz-request-payer": "requester"},
        ) as (store, server):
            await store.put("key", b"1")
            (heard,) = server.heard
            signed = heard.query["X-Amz-SignedHeaders"].split(";")

            assert heard.headers["x-amz-server-side-encryption"] == "aws:kms"
            assert heard.headers["x-amz-request-payer"] == "requester"
            assert {"content-md5", "content-type", "host"} < set(signed)
            assert {"x-amz-server-side-encryption", "x-amz-request-payer"} < set(signed)

    asyncio.run(story())


def test_expired_credentials_are_fetched_anew_once(store_on: StoreOn) -> None:
    fetched = [AwsCredentials("OLD", "old"), AwsCredentials("NEW", "new")]

    async def story() -> None:
        source = BlockingCredentials(lambda: fetched.pop(0), min_refresh_seconds=0)
        async with store_on(
            refusal(400, "ExpiredToken"), reply(200, BODY, META), source=source
        ) as (store, server):
            assert await received(store) == BODY
            assert [h.query["X-Amz-Credential"].partition("/")[0] for h in server.heard] == [
                "OLD",
                "NEW",
            ]

    asyncio.run(story())


def test_an_expired_token_is_recognised_without_a_body(store_on: StoreOn) -> None:
    """S3 answers HEAD with 400 and nothing else."""
    fetched = [AwsCredentials("OLD", "old"), AwsCredentials("NEW", "new")]

    async def story() -> None:
        source = BlockingCredentials(lambda: fetched.pop(0), min_refresh_seconds=0)
        found = reply(200, b"", META | {"Content-Length": "7"})
        async with store_on(reply(400), found, source=source) as (store, _):
            assert (await store.head("key")).size == 7

    asyncio.run(story())


def test_missing_rights_do_not_ask_for_credentials_again_and_again(store_on: StoreOn) -> None:
    calls = []

    def fetch() -> AwsCredentials:
        calls.append(1)
        return AwsCredentials(f"KEY{len(calls)}", "secret")

    async def story() -> None:
        denials = [refusal(403, "AccessDenied")] * 9
        async with store_on(*denials, source=BlockingCredentials(fetch)) as (store, _):
            for _attempt in range(3):
                with pytest.raises(AccessDenied):
                    await store.read("key", max_bytes=9)

    asyncio.run(story())

    assert len(calls) == 1


def test_without_credentials_nothing_is_signed(store_on: StoreOn) -> None:
    async def story() -> None:
        async with store_on(
            reply(200, BODY, META), listing(["a"]), source=FixedCredentials(None)
        ) as (store, server):
            await received(store)
            await listed(store)

            assert server.heard[0].target == "/bucket/key"
            assert not any(n.startswith("X-Amz") for n in server.heard[1].query)
            assert await store.sign("a b", seconds=9) == f"{server.url}/bucket/a%20b"

    asyncio.run(story())


@pytest.mark.parametrize(
    "answers",
    [
        [refusal(403, "SignatureDoesNotMatch", "see /bucket/key?X-Amz-Signature=abc&amp;b=c")],
        [refusal(403, "InvalidToken", f"token={TOKEN}")],
        [reply(302, headers={"Location": "http://127.0.0.1:1/?X-Amz-Signature=abc"})],
        [reset] * 4,
        [stall] * 4,
        [reply(200, BODY, {"ETag": ""}, sent=10, then=reset)],
        [reply(200, BODY, {"Content-Length": "many"})] * 4,
    ],
    ids=["refusal", "token", "redirect", "reset", "stall", "break", "bad header"],
)
def test_no_error_and_no_log_shows_a_signature(
    store_on: StoreOn, answers: list[Answer], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    async def story() -> None:
        async with store_on(*answers) as (store, _):
            with pytest.raises(LabelportError) as caught:
                await received(store)
            shown = "".join(traceback.format_exception(caught.value)) + caplog.text + repr(store)
            error: BaseException | None = caught.value
            while error:
                shown += f"{error} {error!r} {vars(error)}"
                error = error.__context__

            assert "X-Amz-Signature" not in shown
            assert SECRET not in shown
            assert TOKEN not in shown

    asyncio.run(story())


def test_nothing_that_is_printed_shows_a_secret() -> None:
    dialect = S3Dialect("bucket", FixedCredentials(CREDENTIALS))

    async def story() -> str:
        return repr(await dialect.request("GET", "key", {}))

    shown = f"{CREDENTIALS!r} {dialect!r} {asyncio.run(story())}"

    assert SECRET not in shown
    assert TOKEN not in shown
    assert "Signature" not in shown


@pytest.mark.parametrize("lean", [False, True], ids=["aiohttp", "lean"])
def test_a_server_nobody_runs_is_unavailable(lean: bool) -> None:
    async def story() -> None:
        async with loopback([]) as server:
            url = server.url
        slept = Slept()
        store = HttpStore(
            S3Dialect("bucket", FixedCredentials(CREDENTIALS), endpoint=url),
            Transport(lean=lean, retry=RetryPolicy(attempts=2, sleep=slept)),
        )
        with pytest.raises(StoreUnavailable, match=r"the connection failed \(.*\), 2 times"):
            await store.head("key")
        await store.close()

        assert len(slept) == 1

    asyncio.run(story())
