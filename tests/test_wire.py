"""The lean HTTP client against servers that misbehave, on asyncio's loop and on uvloop."""

from __future__ import annotations

import asyncio
import socket
import ssl
import tracemalloc
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from labelport.errors import ConfigurationError, StoreError, StoreTimeout, StoreUnavailable
from labelport.stores._dialect import Request
from labelport.stores._head import Chunked, parse_head
from labelport.stores._response import whole
from labelport.stores._retrying import Busy
from labelport.stores._wire import Wire, is_link_local
from labelport.stores.transport import Transport
from loopback import Answer, hear, loopback, reply, reset, stall

BODY = bytes(range(256)) * 1000
KEPT = {"Connection": ""}

Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=[None, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a story in each kind of event loop."""

    def run(story: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(story)

    return run


@asynccontextmanager
async def wire(**changes: Any) -> AsyncIterator[Wire]:
    """A client that is quick to lose its patience."""
    settings = {"head_seconds": 0.2, "read_seconds": 0.2, "connect_seconds": 0.2, **changes}
    client = Wire(Transport(lean=True, **settings))
    try:
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def keeping(
    *scripts: Iterable[Answer], tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[str, list[str]]]:
    """A server that gives one script of answers on each connection, then closes that.

    Yields its URL, and the connection and number of each request it heard, such as ``0.2``.
    """
    heard: list[str] = []
    turns = iter(enumerate(scripts))
    talks: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection, answers = next(turns)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            for number, answer in enumerate(answers):
                await hear(reader)
                heard.append(f"{connection}.{number}")
                await answer(writer)
        writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talks[asyncio.create_task(serve(reader, writer))] = writer

    listener = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    scheme = "https" if tls else "http"
    async with listener:
        yield f"{scheme}://127.0.0.1:{listener.sockets[0].getsockname()[1]}/key", heard
        for writer in talks.values():
            writer.transport.abort()
        await asyncio.gather(*talks)


def raw(*parts: bytes, then: Answer | None = None) -> Answer:
    """Bytes as they are, each part sent on its own."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        for part in parts:
            if writer.transport.is_closing():
                return
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.002)
        if then:
            await then(writer)

    return answer


async def got(client: Wire, url: str, method: str = "GET", max_bytes: int = 1 << 30) -> bytes:
    """The body of an answer."""
    return await whole(await client.send(Request(method, url), "s3://b/k"), max_bytes)


@pytest.mark.parametrize("size", [0, 1, 300, len(BODY)])
def test_a_body_is_given_whole(run: Run, size: int) -> None:
    async def story() -> None:
        async with loopback([reply(200, BODY[:size], {"X-A": "b"})]) as server, wire() as client:
            response = await client.send(Request("GET", server.url + "/a?b", {"C": "d"}), "")

            assert await whole(response, 1 << 30) == BODY[:size]
            assert (response.status, response.headers["x-a"]) == (200, "b")
            (heard,) = server.heard
            assert (heard.method, heard.target) == ("GET", "/a?b")
            assert heard.headers == {
                "host": server.url.removeprefix("http://"),
                "user-agent": "labelport",
                "accept-encoding": "identity",
                "connection": "keep-alive",
                "c": "d",
            }

    run(story())


def test_an_answer_may_come_byte_by_byte(run: Run) -> None:
    """Each byte moves the time limit of the body on."""
    answer = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n"

    async def story() -> None:
        bytewise = raw(*(bytes([b]) for b in answer + BODY[:200]))
        async with loopback([bytewise]) as server, wire(head_seconds=5.0) as client:
            assert await got(client, server.url + "/") == BODY[:200]

    run(story())


@pytest.mark.parametrize(
    ("answer", "kind", "reason"),
    [
        (stall, StoreTimeout, "no answer within 0.2 s"),
        (raw(b"HTTP/1.1 200 OK\r\nA: b\r\n", then=stall), StoreTimeout, "no answer within"),
        (reply(200, BODY, sent=100, then=stall), StoreTimeout, "no byte within 0.2 s"),
        (reply(200, BODY, sent=100), StoreUnavailable, "ended early"),
        (reply(200, BODY, sent=0, then=reset), StoreUnavailable, "failed|early"),
        (reset, StoreUnavailable, "failed|early"),
        (raw(b""), StoreUnavailable, "ended early"),
        (raw(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), StoreUnavailable, "not HTTP"),
        (raw(b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n"), StoreUnavailable, "not HTTP"),
        (raw(b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n"), StoreUnavailable, "not HTTP"),
        (raw(b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n"), StoreUnavailable, "not HTTP"),
        (raw(b"HTTP/1.1 200 OK\r\nA: b\0c\r\n\r\n"), StoreUnavailable, "not HTTP"),
        (reply(200, BODY, {"Content-Length": "+5"}), StoreUnavailable, "not HTTP"),
        (reply(200, BODY, {"content-length": "5"}), StoreUnavailable, "not HTTP"),
        (reply(200, BODY, {"Transfer-Encoding": "chunked"}), StoreUnavailable, "not HTTP"),
        (reply(200, BODY, {"X": "y" * 70_000}), StoreUnavailable, "not HTTP"),
        (raw(b"HTTP/1.1 200 OK\r\n", *[b"X: y\r\n" * 2000] * 9), StoreUnavailable, "not HTTP"),
    ],
    ids=[
        *("stall", "half a head", "stall in the body", "truncated", "reset after head", "reset"),
        *("closed", "another protocol", "no colon", "folded", "space before colon", "zero byte"),
        *("length with a sign", "two lengths", "two ends", "large head", "head without end"),
    ],
)
def test_a_bad_answer_may_pass(
    run: Run, answer: Answer, kind: type[StoreUnavailable], reason: str
) -> None:
    async def story() -> None:
        async with loopback([answer]) as server, wire() as client:
            with pytest.raises(Busy, match=reason) as caught:
                await got(client, server.url + "/")

            assert caught.value.kind is kind

    run(story())


def test_more_bytes_than_declared_are_not_given(run: Run) -> None:
    """Nor is the connection used again: what follows would be taken for the next answer."""
    longer = reply(200, b"12345678", KEPT | {"Content-Length": "5"}, then=stall)

    async def story() -> None:
        async with keeping([longer, longer], [longer]) as (url, heard), wire() as client:
            assert await got(client, url) == b"12345"
            assert await got(client, url) == b"12345"
            assert heard == ["0.0", "1.0"]

    run(story())


def test_a_connection_is_used_again(run: Run) -> None:
    async def story() -> None:
        async with keeping([reply(200, BODY, KEPT)] * 50) as (url, heard), wire() as client:
            for number in range(50):
                method = "HEAD" if number == 49 else "GET"
                assert await got(client, url, method) == (BODY if method == "GET" else b"")

            assert heard == [f"0.{n}" for n in range(50)]

    run(story())


def test_what_is_left_of_a_small_answer_is_thrown_away(run: Run) -> None:
    small, large = reply(200, BODY[:9000], KEPT), reply(200, BODY, KEPT)

    async def story() -> None:
        async with keeping([small, large, small], [small]) as (url, heard), wire() as client:
            await got(client, url, max_bytes=1)
            await got(client, url, max_bytes=1)
            await got(client, url)

            assert heard == ["0.0", "0.1", "1.0"]

    run(story())


def test_a_connection_closed_while_idle_is_replaced(run: Run) -> None:
    """Once before a request, which may notice, and once by it."""
    good = reply(200, BODY, KEPT)

    async def story() -> None:
        scripts = [[good], [good, reset], [good]]
        async with keeping(*scripts) as (url, heard), wire() as client:
            for _ in range(3):
                assert await got(client, url) == BODY

            assert heard == ["0.0", "1.0", "1.1", "2.0"]

    run(story())


def test_only_one_other_connection_is_tried(run: Run) -> None:
    async def story() -> None:
        scripts = [[reply(200, BODY, KEPT), reset], [reset], [reset]]
        async with keeping(*scripts) as (url, heard), wire() as client:
            await got(client, url)
            with pytest.raises(Busy):
                await got(client, url)

            assert heard == ["0.0", "0.1", "1.0"]

    run(story())


def test_an_answer_that_has_begun_is_not_asked_for_again(run: Run) -> None:
    async def story() -> None:
        begun = raw(b"HTTP/1.1 2", then=reset)
        async with keeping([reply(200, BODY, KEPT), begun]) as (url, heard), wire() as client:
            await got(client, url)
            with pytest.raises(Busy):
                await got(client, url)

            assert heard == ["0.0", "0.1"]

    run(story())


@pytest.mark.parametrize("turns", [*range(12), 40])
def test_a_cancelled_request_gives_its_connection_back(run: Run, turns: int) -> None:
    """Wherever it is cancelled, and the connection is never used again half-way."""

    async def story() -> None:
        kept = reply(200, BODY, KEPT)
        async with keeping(*[[kept] * 9] * 3) as (url, _), wire(connections=1) as client:
            for _ in range(2):
                task = asyncio.create_task(got(client, url))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

            async with asyncio.timeout(2):
                assert await got(client, url) == BODY
            assert len(client._open) == 1

    run(story())


@pytest.mark.parametrize("sent", [None, 100], ids=["before the head", "in the body"])
def test_a_cancelled_request_closes_its_connection(run: Run, sent: int | None) -> None:
    async def story() -> None:
        reached, closed = asyncio.Event(), asyncio.Event()

        async def note(writer: asyncio.StreamWriter) -> None:
            reached.set()
            while not writer.transport.is_closing():
                writer.write(b"H")
                await asyncio.sleep(0.01)
            closed.set()

        answer = note if sent is None else reply(200, BODY, sent=sent, then=note)
        async with loopback([answer]) as server, wire(head_seconds=9, read_seconds=9) as client:
            task = asyncio.create_task(got(client, server.url + "/"))
            await reached.wait()
            task.cancel()

            async with asyncio.timeout(2):
                await closed.wait()

    run(story())


def test_a_client_that_does_not_read_holds_little(run: Run) -> None:
    size = 24 << 20

    async def flood(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size // len(block)):
            writer.write(block)
            await writer.drain()

    block = bytes(64 << 10)

    async def story() -> None:
        async with loopback([flood]) as server, wire(read_seconds=5) as client:
            tracemalloc.start()
            response = await client.send(Request("GET", server.url + "/"), "")
            received = 0
            while chunk := await response.chunk():
                received += len(chunk)
                assert len(chunk) <= 64 << 10
                if received < 1 << 20:
                    await asyncio.sleep(0.01)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            response.release()

            assert received == size
            assert peak < 1 << 20

    run(story())


def test_connections_are_limited(run: Run) -> None:
    async def story() -> None:
        scripts = [[reply(200, BODY, KEPT)] * 9] * 2
        async with keeping(*scripts) as (url, heard), wire(connections=2) as client:
            bodies = await asyncio.gather(*(got(client, url) for _ in range(9)))

            assert bodies == [BODY] * 9
            assert len(heard) == 9

    run(story())


def test_a_server_that_takes_no_connection_times_out(run: Run) -> None:
    async def story() -> None:
        with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
            listener.bind(("127.0.0.1", 0))
            listener.listen(0)
            for other in (first, second):
                other.setblocking(False)
                other.connect_ex(listener.getsockname())
            async with wire() as client:
                with pytest.raises(Busy, match="no connection within") as caught:
                    await got(client, f"http://127.0.0.1:{listener.getsockname()[1]}/")

                assert caught.value.kind is StoreTimeout

    run(story())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate for 127.0.0.1 that nobody else has signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(address, critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    path.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        + signed.public_bytes(Encoding.PEM)
    )
    return path


def test_a_certificate_counts(run: Run, certificate: Path) -> None:
    """One that is trusted, one that is not, and one that nobody looks at."""
    offered = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    offered.load_cert_chain(certificate)
    trusting = ssl.create_default_context(cafile=certificate)

    async def story() -> None:
        async with keeping(*[[reply(200, BODY, KEPT)] * 2] * 3, tls=offered) as (url, heard):
            for tls in (trusting, False):
                async with wire(tls=tls, connect_seconds=5) as client:
                    assert await got(client, url) == BODY
                    assert await got(client, url) == BODY
            async with wire(connect_seconds=5) as client:
                with pytest.raises(ConfigurationError, match=r"certificate of 127\.0\.0\.1"):
                    await got(client, url)

            assert heard == ["0.0", "0.1", "1.0", "1.1"]

    run(story())


@pytest.mark.parametrize("host", ["169.254.169.254", "[fe80::1]", "[::ffff:169.254.169.254]"])
def test_machines_credentials_are_out_of_reach(run: Run, host: str) -> None:
    async def story() -> None:
        async with wire() as client:
            with pytest.raises(ConfigurationError, match="link-local"):
                await got(client, f"http://{host}/latest/meta-data")

    run(story())


@pytest.mark.parametrize(
    ("address", "refused"),
    [
        ("169.253.255.255", False),
        ("169.254.0.0", True),
        ("169.254.255.255", True),
        ("fe80::1%1", True),
        ("febf::1", True),
        ("::ffff:169.254.1.1", True),
        ("127.0.0.1", False),
        ("10.0.0.1", False),
        ("::1", False),
    ],
)
def test_what_is_link_local(address: str, refused: bool) -> None:
    assert is_link_local(address) is refused


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        ("/a b", {}),
        ("/a\r\nX: y", {}),
        ("/a", {"If-Match": '"x"\r\nX: y'}),
        ("/a", {"If-Match": "\0"}),
        ("/é", {}),
    ],
    ids=["space", "newline in the target", "newline in a header", "zero byte", "not ASCII"],
)
def test_a_request_that_would_become_another_is_refused(
    run: Run, target: str, headers: dict[str, str]
) -> None:
    async def story() -> None:
        async with loopback([]) as server, wire() as client:
            with pytest.raises(StoreError, match="control characters"):
                await client.send(Request("GET", server.url + target, headers), "s3://b/k")

            assert server.heard == []

    run(story())


def test_a_body_in_chunks_may_be_cut_anywhere() -> None:
    """S3 words its refusals so."""
    sent = b"5\r\n12345\r\n00A;a=b\r\nabcdefghij\r\n0\r\nTrailer: x\r\n\r\n"
    for cut in range(len(sent)):
        framing = Chunked()
        body = framing.take(sent[:cut]) + framing.take(sent[cut:])

        assert (body, framing.over, framing.surplus) == (b"12345abcdefghij", True, False)

    framing = Chunked()
    assert b"".join(framing.take(bytes([b])) for b in sent + b"!") == b"12345abcdefghij"
    assert framing.surplus


@pytest.mark.parametrize(
    "sent",
    [b"x\r\n", b"\r\n", b"-5\r\n", b"1\r\nabc\r\n", b"1 \r\n" * 2, b"1" * 5000],
    ids=["no number", "nothing", "sign", "longer", "no end", "endless"],
)
def test_a_garbled_chunk_is_refused(sent: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        Chunked().take(sent)


def test_header_names_come_in_any_case() -> None:
    head = parse_head(b"HTTP/1.0 206 \r\netag:\t x y \t\r\nETag: z\r\nEMPTY:\r\n")

    assert head.status == 206
    assert not head.kept
    assert head.headers.get("ETag") == "x y"
    assert head.headers["empty"] == ""
    assert "absent" not in head.headers


def test_spaces_without_end_take_no_time() -> None:
    """A pattern that goes back over them would take hours."""
    with pytest.raises(ValueError, match="no head"):
        parse_head(b"HTTP/1.1 200 OK\r\nA:" + b" " * 65_000 + b"\0\r\n")
