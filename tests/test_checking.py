"""What validating a storage says, and when."""

import asyncio

import pytest

from labelport.checking import validate
from labelport.model import Direction, Storage
from labelport.stores.memory import MemoryStore


@pytest.fixture
def store(request):
    store = MemoryStore(request.node.name)
    yield store
    store.drop()


def check(store, objects=(), *, probe=False, **settings):
    """The checks of a storage on *store*, by name."""
    storage = Storage(
        1, 1, "s", settings.pop("direction", Direction.IMPORT), "memory", store.bucket, **settings
    )

    async def run():
        for key, body in dict(objects).items():
            await store.put(key, body)
        return await validate(store, storage, probe=probe)

    return {answer.name: answer for answer in asyncio.run(run())}


def keys_of(store):
    async def run():
        return [meta.key async for page in store.pages() for meta in page.objects]

    return asyncio.run(run())


def test_a_good_import_storage_passes_every_check(store):
    checks = check(store, {"img/a.json": b"{}", "img/b.json": b"{}"}, prefix="img")

    assert list(checks) == ["bucket", "objects", "read"]
    assert all(answer.ok for answer in checks.values())
    assert "2 of the first 2" in checks["objects"].detail


@pytest.mark.parametrize("direction", list(Direction))
def test_a_missing_bucket_is_named_with_the_remedy(direction):
    checks = check(MemoryStore("nowhere", create=False), direction=direction)

    assert list(checks) == ["bucket"]
    assert not checks["bucket"].ok
    assert "memory://nowhere/" in checks["bucket"].detail
    assert "create the bucket" in checks["bucket"].remedy


def test_the_prefix_is_a_folder(store):
    """``img`` does not find ``img2k/…``, as an import does not."""
    objects = check(store, {"img2k/a.json": b"{}"}, prefix="img")["objects"]

    assert not objects.ok
    assert "covers only keys in img/" in objects.remedy


def test_folders_are_not_looked_into_without_recursive_scan(store):
    objects = check(store, {"deep/a.json": b"{}"}, recursive_scan=False)["objects"]

    assert not objects.ok
    assert "recursive_scan" in objects.remedy


def test_folder_markers_are_no_objects(store):
    objects = check(store, {"img/": b""}, prefix="img")["objects"]

    assert not objects.ok


def test_a_filter_tells_how_many_keys_it_lets_through(store):
    files = {f"img/{n}.{kind}": b"x" for n in range(3) for kind in ("jpg", "txt")}

    assert "3 of the first 6" in check(store, files, regex_filter=r".*\.jpg")["objects"].detail


def test_a_filter_that_lets_nothing_through_fails(store):
    objects = check(store, {"img/a.jpg": b"x"}, regex_filter=r"a\.jpg")["objects"]

    assert not objects.ok
    assert "from the start of the whole key" in objects.remedy


def test_empty_objects_cannot_prove_that_reading_works(store):
    assert not check(store, {"a.json": b""})["read"].ok


def test_an_export_storage_needs_its_bucket_only(store):
    checks = check(store, direction=Direction.EXPORT, prefix="not/there/yet")

    assert [(answer.name, answer.ok) for answer in checks.values()] == [("bucket", True)]


def test_a_probe_writes_and_deletes_one_object(store):
    checks = check(store, direction=Direction.EXPORT, prefix="out", probe=True)

    assert list(checks) == ["bucket", "write", "delete"]
    assert "/out/.labelport-probe-" in checks["write"].detail
    assert keys_of(store) == []


def test_a_check_reads_as_a_sentence(store):
    text = str(check(store)["objects"])

    assert text.startswith("objects failed: there is no object under memory://")
    assert "put objects there" in text
