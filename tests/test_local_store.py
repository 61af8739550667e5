"""Files as objects: confined to their folder, written whole, listed in key order."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from labelport.errors import (
    BucketNotFound,
    ConfigurationError,
    InvalidKey,
    LabelportError,
    ObjectChanged,
    ObjectNotFound,
)
from labelport.model import ALL_KEYS, ByteRange, KeyRange
from labelport.stores.local import LocalStore


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    """An empty bucket, with something outside that nobody may reach."""
    (tmp_path / "secret").write_text("outside")
    folder = tmp_path / "root" / "bucket"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def store(bucket: Path) -> LocalStore:
    return LocalStore(bucket.parent, bucket.name)


def listed(store: LocalStore, prefix: str = "", keys: KeyRange = ALL_KEYS) -> list[str]:
    async def story() -> list[str]:
        return [o.key async for page in store.pages(prefix, keys) for o in page.objects]

    return asyncio.run(story())


def read(store: LocalStore, key: str) -> bytes:
    return asyncio.run(store.read(key, max_bytes=1000))[0]


@pytest.mark.parametrize("target", ["../../secret", "/etc/passwd", "real"])
def test_a_link_to_a_file_is_not_there(bucket: Path, store: LocalStore, target: str) -> None:
    (bucket / "real").write_text("inside")
    (bucket / "link").symlink_to(target)

    assert listed(store) == ["real"]
    with pytest.raises(ObjectNotFound):
        read(store, "link")
    with pytest.raises(ObjectNotFound):
        asyncio.run(store.head("link"))


def test_a_link_to_a_folder_is_not_followed(bucket: Path, store: LocalStore) -> None:
    (bucket / "up").symlink_to("../..")
    (bucket / "a").mkdir()
    (bucket / "a" / "up").symlink_to("../../..")

    assert listed(store) == []
    assert listed(store, "up/") == []
    for key in ("up/secret", "a/up/secret"):
        with pytest.raises(ObjectNotFound):
            read(store, key)
        with pytest.raises(InvalidKey):
            asyncio.run(store.put(key, b"changed"))
        asyncio.run(store.delete(key))

    assert (bucket.parent.parent / "secret").read_text() == "outside"


def test_writing_to_a_link_replaces_the_link(bucket: Path, store: LocalStore) -> None:
    (bucket / "link").symlink_to("../../secret")

    asyncio.run(store.put("link", b"new"))

    assert read(store, "link") == b"new"
    assert (bucket.parent.parent / "secret").read_text() == "outside"


def test_a_bucket_that_is_a_link_is_none(bucket: Path) -> None:
    (bucket.parent / "linked").symlink_to("..")

    with pytest.raises(BucketNotFound):
        listed(LocalStore(bucket.parent, "linked"))


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../bucket", "a\0b"])
def test_a_bucket_is_a_folder_directly_below_the_root(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError):
        LocalStore(tmp_path, name)


@pytest.mark.parametrize("prefix", ["../", "../root/", "a/../", "/", "//"])
def test_a_prefix_that_leads_elsewhere_is_refused(store: LocalStore, prefix: str) -> None:
    with pytest.raises(InvalidKey):
        listed(store, prefix)


def test_pipes_and_sockets_are_no_objects(bucket: Path, store: LocalStore) -> None:
    """Opening a pipe would wait for a writer for ever."""
    os.mkfifo(bucket / "pipe")

    assert listed(store) == []
    with pytest.raises(ObjectNotFound):
        read(store, "pipe")


def test_a_file_being_written_is_hidden(bucket: Path, store: LocalStore) -> None:
    (bucket / ".labelport-1234").write_text("half")
    (bucket / ".hidden").write_text("shown")

    assert listed(store) == [".hidden"]
    with pytest.raises(InvalidKey):
        read(store, ".labelport-1234")


def test_a_refused_put_leaves_nothing_behind(bucket: Path, store: LocalStore) -> None:
    (bucket / "a").write_text("1")
    (bucket / "folder").mkdir()

    with pytest.raises(ObjectChanged):
        asyncio.run(store.put("a", b"2", if_absent=True))
    with pytest.raises(InvalidKey):
        asyncio.run(store.put("folder", b"2"))
    with pytest.raises(InvalidKey):
        asyncio.run(store.put("a/b", b"2"))

    assert sorted(os.listdir(bucket)) == ["a", "folder"]


def test_folders_sort_by_their_slash(bucket: Path, store: LocalStore) -> None:
    keys = ["a!", "a-b/1", "a.b", "a/1", "a/b/2", "a0", "B/c", "é/x"]
    for key in keys:
        (bucket / key).parent.mkdir(parents=True, exist_ok=True)
        (bucket / key).write_text(key)

    async def story() -> None:
        for after in ["", *keys, "a/", "a-", "a/b", "b"]:
            for until in [None, *keys, "a/", "a/b", "c"]:
                wanted = KeyRange(after, until)
                found = [o.key async for page in store.pages("", wanted) for o in page.objects]

                assert found == [k for k in sorted(keys) if k in wanted]

    asyncio.run(story())


def test_names_that_are_not_utf_8_are_listed_as_they_are(bucket: Path, store: LocalStore) -> None:
    Path(os.fsdecode(os.fsencode(bucket) + b"/bad\xff.json")).write_bytes(b"1")

    assert listed(store) == ["bad\udcff.json"]
    assert read(store, "bad\udcff.json") == b"1"


def test_a_key_no_file_system_can_write_is_refused(store: LocalStore) -> None:
    with pytest.raises(InvalidKey):
        asyncio.run(store.put("lone\ud800surrogate", b"1"))


def test_a_file_written_to_while_it_is_read_is_another(bucket: Path, store: LocalStore) -> None:
    (bucket / "grows").write_bytes(bytes(3 << 20))

    async def story() -> None:
        async with store.open("grows") as stream:
            async for _chunk in stream:
                with (bucket / "grows").open("ab") as file:
                    file.write(b"more")

    with pytest.raises(ObjectChanged):
        asyncio.run(story())


def test_a_root_that_is_missing_has_no_buckets(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "nowhere", "bucket")

    for call in (store.head("a"), store.put("a", b"1"), store.read("a", max_bytes=1)):
        with pytest.raises(BucketNotFound):
            asyncio.run(call)


def test_every_refusal_names_the_object(store: LocalStore) -> None:
    with pytest.raises(LabelportError, match="file://bucket/a/b"):
        asyncio.run(store.head("a/b"))


@pytest.mark.parametrize(
    ("key", "wanted"),
    [
        ("a.png", ("image/png", "")),
        ("a.json.gz", ("application/octet-stream", "")),
        ("a", ("application/octet-stream", "")),
    ],
)
def test_a_name_tells_the_content_type(
    bucket: Path, store: LocalStore, key: str, wanted: tuple[str, str]
) -> None:
    (bucket / key).write_bytes(b"1")

    meta = asyncio.run(store.head(key))
    _, read_meta = asyncio.run(store.read(key, max_bytes=9))

    assert (meta.content_type, meta.content_encoding) == wanted
    assert meta == read_meta


def test_a_file_is_read_in_chunks_of_the_given_size(bucket: Path) -> None:
    (bucket / "ten").write_bytes(b"0123456789")

    async def story() -> list[bytes]:
        store = LocalStore(bucket.parent, bucket.name, chunk_bytes=4)
        async with store.open("ten", ByteRange(1)) as stream:
            return [chunk async for chunk in stream]

    assert asyncio.run(story()) == [b"1234", b"5678", b"9"]
