"""Any key that an object may have can be asked for, and brings that object and no other."""

from __future__ import annotations

import asyncio
from urllib.parse import quote
from zlib import crc32

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from conftest import OpenPlace, Place, Site
from labelport.resolving import proxy_path
from labelport.stores.memory import MemoryStore
from proxies import Answer, Client, project, storage, task

#: All but control characters and halves of surrogate pairs, which no URI holds, and backslashes.
characters = st.characters(
    exclude_categories=["Cs"], exclude_characters="\\" + "".join(map(chr, (*range(32), 127)))
)
texts = st.text(
    characters | st.sampled_from("/?#%+&=:;.\"' <>~é\u0301日😀"), min_size=1, max_size=60
)
keys = texts.filter(lambda key: len(key.encode()) <= 1024)


def is_path(key: str) -> bool:
    """Whether a file can have this name below a folder."""
    parts = key.split("/")
    return all(part not in ("", ".", "..") and len(part.encode()) <= 255 for part in parts)


EXAMPLES = settings(
    max_examples=60,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.filter_too_much],
)


@pytest.fixture(scope="module")
def files(open_place: OpenPlace) -> Place:
    return open_place("local")


@pytest.fixture(scope="module")
def memory(small_site: Site) -> tuple[Client, int]:
    project_id = project(small_site.catalog, "keys")
    made = storage(
        small_site.catalog, project_id, "keys", "memory://keys", serve_any_key=True, presign=False
    )
    small_site.stores[made.id] = lambda: MemoryStore("keys")
    MemoryStore("keys")
    return small_site.member(project_id), project_id


def plainly(client: Client, project_id: int, uri: str) -> Answer:
    """Ask by the URI itself, quoted, and not by its base64."""
    path = proxy_path("projects", project_id)
    return client.send("GET", f"{path}?fileuri={quote(uri, safe='')}")


@given(keys)
@example("a//b/./../c")
@example("%2e%2e/%2F%00")
@example("?fileuri=x&user=1#y")
@example(" leading and trailing ")
@example("x/" * 511 + "yz")
@EXAMPLES
def test_a_key_in_memory_brings_its_object(memory: tuple[Client, int], key: str) -> None:
    client, project_id = memory
    body = b"object of " + key.encode()
    asyncio.run(MemoryStore("keys").put(key, body))
    uri = f"memory://keys/{key}"

    for answer in (client.get("projects", project_id, uri), plainly(client, project_id, uri)):
        assert (answer.status, answer.body) == (200, body)
        assert answer.headers["content-disposition"].isascii()


@given(keys.filter(is_path))
@example("a/...b/..c")
@example("%2e%2e/%2F")
@example("caf\u00e9")
@example("cafe\u0301")
@EXAMPLES
def test_a_key_of_a_file_brings_its_bytes(files: Place, key: str) -> None:
    """Each below a folder of its own, lest one's folder be another's file."""
    key = f"{crc32(key.encode()):x}/{key}"
    body = b"file of " + key.encode()
    files.put(key, body)

    assert (files.get(key).status, files.get(key).body) == (200, body)
    uri = files.storage.uri(key)
    assert plainly(files.client, files.storage.project_id, uri).body == body


def test_a_backslash_is_served_where_a_task_says_so_and_by_no_prefix(
    small_site: Site, memory: tuple[Client, int]
) -> None:
    """A store that took it for a slash would find the object below another prefix."""
    client, project_id = memory
    key = "folder\\file"
    uri = f"memory://keys/{key}"
    asyncio.run(MemoryStore("keys").put(key, b"body"))
    task_id = task(small_site.catalog, project_id, {"image": uri})

    assert client.get("tasks", task_id, uri).body == b"body"
    assert client.get("projects", project_id, uri).status == 403


@pytest.mark.parametrize("key", ["../x", "a/../../x", "a/..", "./x", "a//x", "/etc/passwd", "a/"])
def test_no_key_leads_out_of_the_bucket(files: Place, key: str) -> None:
    for answer in (
        files.get(key),
        plainly(files.client, files.storage.project_id, files.storage.uri(key)),
    ):
        assert answer.status in (400, 403, 404)
        assert b"root:" not in answer.body
