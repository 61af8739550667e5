"""What every store does, whatever is behind it; and exactly where a server cannot."""

from __future__ import annotations

import asyncio
import tracemalloc
import urllib.request
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from labelport.errors import (
    AccessDenied,
    BucketNotFound,
    ConfigurationError,
    FormatError,
    InvalidKey,
    InvalidRange,
    ObjectChanged,
    ObjectNotFound,
    StoreError,
)
from labelport.model import ALL_KEYS, ByteRange, KeyRange
from labelport.stores import Store
from labelport.stores._http import HttpStore, Transport
from labelport.stores.aws_credentials import AwsCredentials, FixedCredentials
from labelport.stores.local import LocalStore
from labelport.stores.memory import MemoryStore
from labelport.stores.s3 import S3Dialect
from servers import S3Server

BACKENDS = ("memory", "local", "weed", "moto", "weed-lean", "moto-lean")

#: Keys that some layer between us and the bytes would like to change.
KEYS = {
    "leading slash": "/lead",
    "double slash": "a//b",
    "trailing slash": "folder/",
    "question mark": "what?.json",
    "hash": "page#1.json",
    "percent": "100%.json",
    "percent code": "a%2Fb%20c%2e.json",
    "plus": "a+b.json",
    "ampersand and equals": "a=1&b=2",
    "quotes": 'it\'s "quoted" `so`.json',
    "spaces": " two  spaces .json ",
    "backslash": "a\\b",
    "angle brackets": "<a>&amp;<b>",
    "reserved": "!*();:@,$[]{}|^~",
    "dots": "...hidden/..a/b..",
    "nfc": "caf\u00e9.json",
    "nfd": "cafe\u0301.json",
    "wide": "日本語/😀.json",
    "1024 bytes": "x/" * 511 + "yz",
    "1024 bytes in one part": "n" * 1024,
}

#: What a server makes of a key, or of a request, that is not what S3 does.
CANNOT = {
    ("local", "leading slash"): "no file has an empty name",
    ("local", "double slash"): "no file has an empty name",
    ("local", "trailing slash"): "no file has an empty name",
    ("local", "1024 bytes in one part"): "a file name has at most 255 bytes",
    ("weed", "leading slash"): "drops a leading slash",
    ("weed", "double slash"): "collapses slashes",
    ("weed", "trailing slash"): "takes the key for a folder, with an etag of its own",
    ("weed", "backslash"): "turns backslashes into slashes",
    ("weed", "1024 bytes in one part"): "a part has at most 255 bytes",
    ("weed", "order"): "lists its tree: 'a/x' before 'a-b'",
    ("moto", "secret"): "verifies no signature",
}


@dataclass(frozen=True)
class Backend:
    """One kind of store, and a way to open a bucket of it."""

    name: str  #: of what is behind it
    bucket: str  #: there, and empty
    open_bucket: Callable[[str], Store]

    @asynccontextmanager
    async def store(self, bucket: str | None = None) -> AsyncIterator[Store]:
        """A store on this test's bucket, or another."""
        store = self.open_bucket(bucket or self.bucket)
        try:
            yield store
        finally:
            await store.close()


def s3_store(
    server: S3Server, bucket: str, secret: str | None = None, *, lean: bool = False
) -> HttpStore:
    """A store on a bucket of a test server."""
    credentials = AwsCredentials(server.access_key_id, secret or server.secret_access_key)
    dialect = S3Dialect(bucket, FixedCredentials(credentials), endpoint=server.endpoint)
    return HttpStore(dialect, Transport(lean=lean))


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    """Each kind of store, with a new bucket."""
    name, bucket = str(request.param), f"contract-{uuid.uuid4().hex[:12]}"
    if name == "memory":
        MemoryStore(bucket)
        return Backend(name, bucket, lambda b: MemoryStore(b, create=False))
    if name == "local":
        (tmp_path / bucket).mkdir()
        return Backend(name, bucket, lambda b: LocalStore(tmp_path, b))
    name, _, lean = name.partition("-")
    server: S3Server = request.getfixturevalue(name)
    client = server.client()
    client.create_bucket(Bucket=bucket)
    client.close()
    return Backend(name, bucket, lambda b: s3_store(server, b, lean=bool(lean)))


def excuse(request: pytest.FixtureRequest, backend: Backend, what: str) -> None:
    """Expect a test to fail where this server cannot do *what*, and only there."""
    if reason := CANNOT.get((backend.name, what)):
        request.applymarker(pytest.mark.xfail(reason=f"{backend.name}: {reason}", strict=True))


async def fill(store: Store, keys: Iterable[str]) -> None:
    """Write an object under each key, its bytes being the key."""
    gate = asyncio.Semaphore(16)

    async def put(key: str) -> None:
        async with gate:
            await store.put(key, key.encode())

    await asyncio.gather(*map(put, keys))


async def listed(store: Store, prefix: str = "", keys: KeyRange = ALL_KEYS) -> list[str]:
    """All keys of a listing."""
    return [o.key async for page in store.pages(prefix, keys) for o in page.objects]


async def raised(call: Awaitable[object]) -> BaseException:
    """The error that a call of the library raises."""
    with pytest.raises((StoreError, FormatError, ConfigurationError)) as caught:
        await call
    return caught.value


@pytest.mark.parametrize("what", KEYS)
def test_a_key_is_one_opaque_string(
    backend: Backend, what: str, request: pytest.FixtureRequest
) -> None:
    """What is put under a key is listed, found, read and deleted under it."""
    excuse(request, backend, what)
    key = KEYS[what]

    async def story() -> None:
        async with backend.store() as store:
            etag = await store.put(key, b"one")
            body, meta = await store.read(key, max_bytes=10)
            head = await store.head(key)

            assert body == b"one"
            assert meta == head
            assert (meta.key, meta.size, meta.etag) == (key, 3, etag)
            assert await listed(store) == [key]
            assert await listed(store, key) == [key]

            await store.delete(key)

            assert await listed(store) == []

    asyncio.run(story())


def test_nfc_and_nfd_are_two_keys(backend: Backend) -> None:
    async def story() -> None:
        async with backend.store() as store:
            await fill(store, [KEYS["nfc"], KEYS["nfd"]])

            assert sorted(await listed(store)) == sorted([KEYS["nfc"], KEYS["nfd"]])

    asyncio.run(story())


def test_pages_show_every_key_once(backend: Backend) -> None:
    keys = [f"{n % 7}/{n:03}" for n in range(130)]

    async def story() -> None:
        async with backend.store() as store:
            await fill(store, [*keys, "other"])
            pages = [
                [o.key for o in page.objects]
                async for page in store.pages("", KeyRange(until="9"), page_size=20)
            ]

            assert sorted(k for page in pages for k in page) == sorted(keys)
            assert all(0 < len(page) <= 20 for page in pages)
            assert len(pages) >= 7

    asyncio.run(story())


def test_pages_come_in_code_point_order(backend: Backend, request: pytest.FixtureRequest) -> None:
    excuse(request, backend, "order")
    keys = ["a", "a-b", "a.b", "a/b", "a/b-c", "a/b/c", "a0", "b/z", "Z", "é", "\uffee", "😀"]
    if backend.name == "local":
        keys = [k for k in keys if k not in ("a", "a/b")]  # a file is no folder

    async def story() -> None:
        async with backend.store() as store:
            await fill(store, keys)

            assert await listed(store) == sorted(keys)
            assert store.ordered

    asyncio.run(story())


def test_a_store_tells_after_one_page_that_it_is_unordered(weed: S3Server) -> None:
    client = weed.client()
    client.create_bucket(Bucket="unordered")
    client.close()

    async def story() -> None:
        store = s3_store(weed, "unordered")
        await fill(store, ["a-b", "a/x"])
        await listed(store)
        await store.close()

        assert not store.ordered

    asyncio.run(story())


@pytest.mark.parametrize(
    "keys",
    [
        KeyRange("b/2"),
        KeyRange("", "b/2"),
        KeyRange("a-", "b/2"),
        KeyRange("a/", "a0"),
        KeyRange("b/15", "b/35"),
        KeyRange("zz"),
        KeyRange("", "A"),
    ],
    ids=str,
)
def test_a_key_range_leaves_out_its_start_and_keeps_its_end(
    backend: Backend, keys: KeyRange
) -> None:
    everything = ["a-1", "a-2", "a/1", "a/2", "b/1", "b/2", "b/3", "b/4", "c"]

    async def story() -> None:
        async with backend.store() as store:
            await fill(store, everything)
            found = [
                [o.key for o in page.objects] async for page in store.pages("", keys, page_size=2)
            ]

            assert sorted(k for page in found for k in page) == [k for k in everything if k in keys]

    asyncio.run(story())


def test_a_prefix_is_any_beginning_of_a_key(backend: Backend) -> None:
    async def story() -> None:
        async with backend.store() as store:
            await fill(store, ["im", "img/1", "img/2", "img2k/1", "x/img/1"])

            assert sorted(await listed(store, "img")) == ["img/1", "img/2", "img2k/1"]
            assert sorted(await listed(store, "img/")) == ["img/1", "img/2"]
            assert await listed(store, "img/1") == ["img/1"]
            assert await listed(store, "none/") == []
            assert await listed(store, "img/", KeyRange("img/1")) == ["img/2"]

    asyncio.run(story())


def test_a_folder_is_listed_without_what_is_below_its_folders(backend: Backend) -> None:
    keys = ["top", "a/1", "a/2", "a/b/3", "a/b/4", "a/c/d/5", "e/6"]

    async def story() -> None:
        async with backend.store() as store:
            await fill(store, keys)
            for prefix, objects, folders in (
                ("", ["top"], ["a/", "e/"]),
                ("a/", ["a/1", "a/2"], ["a/b/", "a/c/"]),
                ("a/c/", [], ["a/c/d/"]),
            ):
                for page_size in (1, 1000):
                    pages = [
                        page
                        async for page in store.pages(prefix, recursive=False, page_size=page_size)
                    ]

                    assert sorted(o.key for p in pages for o in p.objects) == objects
                    assert sorted(f for p in pages for f in p.prefixes) == folders

    asyncio.run(story())


def test_a_listing_tells_what_head_tells(backend: Backend) -> None:
    async def story() -> None:
        async with backend.store() as store:
            await store.put("a/b.json", b"12345")
            (page,) = [page async for page in store.pages()]
            head = await store.head("a/b.json")
            (found,) = page.objects

            assert (found.key, found.size, found.etag) == (head.key, head.size, head.etag)
            assert (head.content_type, head.content_encoding) == ("application/json", "")
            assert found.modified is not None
            assert abs(datetime.now(UTC) - found.modified) < timedelta(minutes=1)

    asyncio.run(story())


@pytest.mark.parametrize(
    ("byte_range", "wanted"),
    [
        (None, b"0123456789"),
        (ByteRange(0), b"0123456789"),
        (ByteRange(0, 1), b"0"),
        (ByteRange(4, 6), b"45"),
        (ByteRange(9, 10), b"9"),
        (ByteRange(7), b"789"),
        (ByteRange(7, 99), b"789"),
    ],
    ids=str,
)
def test_a_range_is_streamed(backend: Backend, byte_range: ByteRange | None, wanted: bytes) -> None:
    async def story() -> None:
        async with backend.store() as store:
            await store.put("ten.json", b"0123456789", content_type="application/json")
            async with store.open("ten.json", byte_range) as stream:
                assert b"".join([chunk async for chunk in stream]) == wanted
                assert stream.meta.size == 10
                assert stream.meta.content_type == "application/json"

    asyncio.run(story())


@pytest.mark.parametrize("byte_range", [ByteRange(10), ByteRange(10, 11), ByteRange(5, 5)], ids=str)
def test_a_range_without_a_byte_is_refused(backend: Backend, byte_range: ByteRange) -> None:
    async def story() -> None:
        async with backend.store() as store:
            await store.put("ten", b"0123456789")
            with pytest.raises(InvalidRange):
                async with store.open("ten", byte_range):
                    pass

    asyncio.run(story())


def test_an_empty_object_is_read_and_has_no_range(backend: Backend) -> None:
    async def story() -> None:
        async with backend.store() as store:
            await store.put("empty", b"")

            assert (await store.read("empty", max_bytes=0))[0] == b""
            with pytest.raises(InvalidRange):
                async with store.open("empty", ByteRange(0)):
                    pass

    asyncio.run(story())


def test_an_object_larger_than_allowed_is_not_read(backend: Backend) -> None:
    async def story() -> None:
        async with backend.store() as store:
            await store.put("ten", b"0123456789")

            assert (await store.read("ten", max_bytes=10))[0] == b"0123456789"
            assert isinstance(await raised(store.read("ten", max_bytes=9)), FormatError)

    asyncio.run(story())


def test_a_large_object_is_streamed_in_bounded_memory(backend: Backend) -> None:
    size = 24 << 20
    body = bytes(1 << 20) * 24

    async def story() -> None:
        async with backend.store() as store:
            await store.put("large", body)
            received = largest = 0
            tracemalloc.start()
            async with store.open("large") as stream:
                async for chunk in stream:
                    received += len(chunk)
                    largest = max(largest, len(chunk))
                    await asyncio.sleep(0)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()

            assert received == size
            assert largest <= 1 << 20
            assert peak < 6 << 20

    asyncio.run(story())


def test_a_stream_may_be_left_early(backend: Backend) -> None:
    async def story() -> None:
        async with backend.store() as store:
            await store.put("large", bytes(4 << 20))
            for _ in range(3):
                async with store.open("large") as stream:
                    async for _chunk in stream:
                        break

            assert (await store.head("large")).size == 4 << 20

    asyncio.run(story())


def test_putting_only_what_is_absent(backend: Backend) -> None:
    async def story() -> None:
        async with backend.store() as store:
            await store.put("a/b", b"first", if_absent=True)
            error = await raised(store.put("a/b", b"second", if_absent=True))

            assert isinstance(error, ObjectChanged)
            assert (await store.read("a/b", max_bytes=9))[0] == b"first"

            await store.put("a/b", b"third")

            assert (await store.read("a/b", max_bytes=9))[0] == b"third"

    asyncio.run(story())


def test_an_object_is_opened_only_while_it_has_its_etag(backend: Backend) -> None:
    async def story() -> None:
        async with backend.store() as store:
            before = await store.put("a", b"before")
            async with store.open("a", ByteRange(3), etag=before) as stream:
                assert [chunk async for chunk in stream] == [b"ore"]
            await store.put("a", b"after!")

            with pytest.raises(ObjectChanged):
                async with store.open("a", etag=before):
                    pass

    asyncio.run(story())


def test_deleting_twice_is_no_error(backend: Backend) -> None:
    async def story() -> None:
        async with backend.store() as store:
            await store.put("a/b", b"1")
            await store.delete("a/b")
            await store.delete("a/b")
            await store.delete("never/there")

            assert isinstance(await raised(store.head("a/b")), ObjectNotFound)

    asyncio.run(story())


def test_an_object_that_is_not_there(backend: Backend) -> None:
    async def story() -> None:
        async with backend.store() as store:
            for error in (
                await raised(store.head("no/such")),
                await raised(store.read("no/such", max_bytes=1)),
            ):
                assert isinstance(error, ObjectNotFound)
                assert error.uri == f"{store.scheme}://{store.bucket}/no/such"

    asyncio.run(story())


def test_a_bucket_that_is_not_there(backend: Backend) -> None:
    async def story() -> None:
        async with backend.store("no-such-bucket") as store:
            assert isinstance(await raised(listed(store)), BucketNotFound)
            assert isinstance(await raised(store.read("a", max_bytes=1)), BucketNotFound)
            assert isinstance(await raised(store.put("a", b"1")), BucketNotFound)

    asyncio.run(story())


@pytest.mark.parametrize("key", ["..", "../a", "a/../b", "a/./b", "./a", "a/..", ""])
@pytest.mark.parametrize("backend", ["local", "weed"], indirect=True)
def test_a_key_that_would_become_another_is_refused(backend: Backend, key: str) -> None:
    async def story() -> None:
        async with backend.store() as store:
            for call in (
                store.head(key),
                store.read(key, max_bytes=1),
                store.put(key, b"1"),
                store.delete(key),
            ):
                assert isinstance(await raised(call), InvalidKey)

    asyncio.run(story())


@pytest.mark.parametrize("key", ["a\nb", "a\0b", "a\x7fb", "bad\udcff"], ids=ascii)
def test_http_carries_no_control_characters(moto: S3Server, key: str) -> None:
    async def story() -> None:
        store = s3_store(moto, "any")

        assert isinstance(await raised(store.head(key)), InvalidKey)

    asyncio.run(story())


def test_a_key_that_cannot_be_read_can_be_listed(moto: S3Server) -> None:
    client = moto.client()
    client.create_bucket(Bucket="bent")
    keys = ["..", "./c", "a/../b", "tab\there", "x\x01", "x\x7f"]
    for key in keys:
        client.put_object(Bucket="bent", Key=key, Body=b"")
    client.close()

    async def story() -> None:
        store = s3_store(moto, "bent")
        try:
            assert await listed(store) == sorted(keys)
        finally:
            await store.close()

    asyncio.run(story())


@pytest.mark.parametrize("backend", ["weed", "moto"], indirect=True)
def test_a_wrong_secret_is_refused(backend: Backend, request: pytest.FixtureRequest) -> None:
    excuse(request, backend, "secret")
    server: S3Server = request.getfixturevalue(backend.name)

    async def story() -> None:
        store = s3_store(server, backend.bucket, secret="wrong")
        try:
            for call in (listed(store), store.put("a", b"1"), store.head("a"), store.delete("a")):
                assert isinstance(await raised(call), AccessDenied)
        finally:
            await store.close()

    asyncio.run(story())


@pytest.mark.parametrize("key", ["plain.json", "a b+c&d=e?f#g%20/é.json"])
@pytest.mark.parametrize("backend", ["weed", "moto"], indirect=True)
def test_a_signed_url_needs_nothing_else(backend: Backend, key: str) -> None:
    async def story() -> str:
        async with backend.store() as store:
            await store.put(key, b"[1]", content_type="application/octet-stream")
            assert store.signs
            return await store.sign(key, seconds=60, content_type="image/png")

    with urllib.request.urlopen(asyncio.run(story()), timeout=10) as response:  # noqa: S310
        assert response.read() == b"[1]"
        assert response.headers["Content-Type"] == "image/png"


@pytest.mark.parametrize("backend", ["memory", "local"], indirect=True)
def test_without_urls_there_is_nothing_to_sign(backend: Backend) -> None:
    async def story() -> None:
        async with backend.store() as store:
            assert not store.signs
            assert isinstance(await raised(store.sign("a", seconds=60)), ConfigurationError)

    asyncio.run(story())
