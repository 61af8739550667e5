"""Which storage answers for a URI, and task data whose URIs lead to the proxy."""

from __future__ import annotations

import base64
import json
import time
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelport.model import Direction, Storage
from labelport.resolving import decode_fileuri, proxy_url, refers, resolve, storage_for
from labelport.uri import ObjectUri

BASE = "https://media.example.org"
KEYS = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1)


def storage(id: int, location: str, direction: Direction = Direction.IMPORT) -> Storage:
    return Storage(id, 1, f"storage {id}", direction, *ObjectUri.parse(location))


def proxied(uri: str) -> str:
    return proxy_url(BASE, "tasks", 7, uri)


def answering(uri: str, *storages: Storage, prefer: int | None = None) -> int | None:
    answer = storage_for(ObjectUri.parse(uri), storages, prefer=prefer)
    return answer.storage.id if answer.storage else None


def test_tasks_of_one_bucket_refer_to_another():
    """Case 1 of the reference: storage 1 brought the task, storage 2 answers for its images."""
    tasks, images = storage(1, "s3://bucket-A/"), storage(2, "s3://bucket-B/")
    data = {"image": "s3://bucket-B/cat.jpg", "text": "s3://bucket-A/cat.txt", "n": 1}
    resolution = resolve(data, [tasks, images], proxied, prefer=tasks.id)

    assert answering(data["image"], tasks, images, prefer=tasks.id) == images.id
    assert resolution.data == {
        "image": proxied("s3://bucket-B/cat.jpg"),
        "text": proxied("s3://bucket-A/cat.txt"),
        "n": 1,
    }
    assert (resolution.unresolved, resolution.ambiguous) == ((), ())


def test_buckets_with_different_credentials():
    """Case 2 of the reference: each bucket's storage, with its credentials, answers for it."""
    storages = [storage(1, "s3://bucket-A/"), storage(2, "s3://bucket-B/")]

    assert answering("s3://bucket-A/a.jpg", *storages) == 1
    assert answering("s3://bucket-B/b.jpg", *storages) == 2
    assert answering("gs://bucket-A/a.jpg", *storages) is None


@pytest.mark.parametrize(
    ("uri", "answer"),
    [
        ("s3://b/img/cats/1.jpg", 3),
        ("s3://b/img/dogs/1.jpg", 2),
        ("s3://b/img/1.jpg", 2),
        ("s3://b/img2k/1.jpg", 1),
        ("s3://b/img", 1),
        ("s3://b/img/../img/cats/1.jpg", 2),
        ("s3://b//img/1.jpg", 1),
        ("s3://b2/img/1.jpg", None),
        ("S3://b/img/1.jpg", 2),
        ("s3://B/img/1.jpg", None),
    ],
)
def test_the_deepest_folder_that_covers_the_key_answers(uri, answer):
    storages = [storage(1, "s3://b/"), storage(3, "s3://b/img/cats/"), storage(2, "s3://b/img")]

    assert answering(uri, *storages) == answer


def test_an_export_storage_never_answers():
    assert answering("s3://b/k", storage(1, "s3://b/", Direction.EXPORT)) is None


def test_among_equals_the_storage_that_brought_the_task_answers_else_the_oldest():
    one, two, three = storage(1, "s3://b/img"), storage(2, "s3://b/img/"), storage(3, "s3://b/")
    uri = ObjectUri.parse("s3://b/img/1.jpg")

    assert storage_for(uri, [two, three, one]) == (one, (two,))
    assert storage_for(uri, [one, two, three], prefer=2) == (two, (one,))
    assert storage_for(uri, [one, two, three], prefer=3) == (one, (two,))
    assert storage_for(ObjectUri.parse("s3://b/k"), [one, two, three]) == (three, ())


def test_what_nobody_or_more_than_one_answers_for_is_told_once_and_in_order():
    one, two = storage(1, "s3://b/"), storage(2, "s3://b/")
    html = '<img src="s3://b/2&amp;.jpg"> gs://x/2'
    data = {"html": html, "list": ["gs://x/1", {"deep": "s3://b/1.jpg"}, "gs://x/2"]}
    resolution = resolve(data, [one, two], proxied, prefer=2)

    assert resolution.unresolved == ("gs://x/2", "gs://x/1")
    assert resolution.ambiguous == (("s3://b/2&.jpg", (two, one)), ("s3://b/1.jpg", (two, one)))
    assert resolution.data == {
        "html": f'<img src="{proxied("s3://b/2&.jpg")}"> gs://x/2',
        "list": ["gs://x/1", {"deep": proxied("s3://b/1.jpg")}, "gs://x/2"],
    }


@given(KEYS)
def test_resolved_data_lead_back_to_the_uri_and_stay_when_resolved_again(key):
    uri, storages = f"s3://b/{key}", [storage(1, "s3://b/")]
    data = resolve(["x", {"y": uri}], storages, proxied).data
    url = urlsplit(data[1]["y"])
    ((fileuri,),) = parse_qs(url.query, strict_parsing=True).values()

    assert (url.netloc, url.path) == ("media.example.org", "/tasks/7/resolve/")
    assert decode_fileuri(fileuri) == uri
    assert resolve(data, storages, proxied).data == data


@given(KEYS, st.booleans())
def test_a_fileuri_may_be_plain_or_in_either_alphabet_padded_or_not(key, padded):
    uri = f"s3://b/{key}"
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        text = encode(uri.encode()).decode()
        assert decode_fileuri(text if padded else text.rstrip("=")) == uri
    assert decode_fileuri(uri) == uri


@given(st.text(max_size=40) | st.text("ABczwM68Ly9iL2s_-+/= ", max_size=40))
def test_no_fileuri_gives_anything_but_a_uri_or_a_sentence(text):
    try:
        uri = decode_fileuri(text)
    except UnicodeError:
        raise
    except ValueError as error:
        assert str(error).startswith("fileuri ")
    else:
        assert "://" in uri.encode().decode()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "names no object"),
        ("a.jpg", "neither base64 nor a URI"),
        ("czM6Ly9iL2s\n", "neither base64 nor a URI"),
        ("czM6 Ly9iL2s", "neither base64 nor a URI"),
        ("czM6Ly9iL2s==", "neither base64 nor a URI"),
        ("czM6Ly9iL2s=A", "neither base64 nor a URI"),
        ("czM6Ly9iL", "neither base64 nor a URI"),
        ("czM6Ly9iLz8/_-", "neither base64 nor a URI"),
        ("ſczM6Ly9iL2s", "neither base64 nor a URI"),
        (base64.b64encode(b"s3://b/\xff").decode(), "not UTF-8"),
        (base64.b64encode("s3://b/\ud800".encode(errors="surrogatepass")).decode(), "not UTF-8"),
        (base64.b64encode(b"/etc/passwd").decode(), "names no object"),
        (base64.b64encode(b"s3://b/k\r\nX: y").decode(), "control characters"),
        ("s3://b/k\0", "control characters"),
        ("s3://b/\udcff", "not UTF-8"),
    ],
)
def test_a_fileuri_that_is_none_is_refused_in_words(text, sentence):
    with pytest.raises(ValueError, match=sentence):
        decode_fileuri(text)


def test_a_proxy_url_of_a_project_below_a_path():
    assert proxy_url("https://x.example/media/", "projects", 3, "s3://b/?>") == (
        "https://x.example/media/projects/3/resolve/?fileuri=czM6Ly9iLz8-"
    )


@pytest.mark.parametrize("ascii", [True, False], ids=["escaped", "plain"])
@pytest.mark.parametrize(
    "data",
    [
        {"image": "s3://b/é.jpg"},
        ["x", {"y": ["s3://b/é.jpg"]}],
        {"html": '<a href="s3://b/é.jpg">'},
        {"html": "<a href='s3&#58;//b/x'> <a href='s3://b/&eacute;.jpg'>"},
    ],
    ids=["string", "nested", "html", "entity"],
)
def test_data_refer_to_the_uris_in_them(data, ascii):
    text = json.dumps(data, ensure_ascii=ascii)

    assert refers(text, "s3://b/é.jpg")
    assert refers(text.replace("/", "\\/"), "s3://b/é.jpg")


@pytest.mark.parametrize(
    "data",
    [
        {"image": "s3://b/a.jpg.txt"},
        {"image": "s3://b/x/s3://b/a.jpg"},
        {"image": "s3://b/a%2Ejpg"},
        {"s3://b/a.jpg": "x"},
        {"link": "https://x.example/?u=s3://b/a.jpg"},
        {"text": "a.jpg"},
        {"text": "s3://b\\/a.jpg"},
    ],
)
def test_data_do_not_refer_to_what_merely_looks_like_the_uri(data):
    assert not refers(json.dumps(data), "s3://b/a.jpg")


@given(st.lists(st.text(max_size=30) | KEYS.map("s3://b/{}".format)), KEYS)
def test_data_refer_to_exactly_the_uris_put_in(values, key):
    values = [value.encode(errors="ignore").decode() for value in values]
    uri = f"s3://b/{key}"

    assert refers(json.dumps([*values, uri]), uri)
    assert refers(json.dumps(values), uri) == (uri in values)


def test_all_frames_of_a_long_task_are_found_in_no_time() -> None:
    """Read anew for each of them, the task would take half a minute."""
    frames = [f"s3://bucket/video/{number:06}.jpg" for number in range(3_000)]
    data = json.dumps({"frames": frames})
    begun = time.process_time()

    assert all(refers(data, frame) for frame in frames)
    assert not refers(data, "s3://bucket/video/00001")
    assert time.process_time() - begun < 10
