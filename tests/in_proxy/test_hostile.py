"""Objects whose authors mean harm: what they say of themselves, and how they are called."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import pytest

from labelport.catalog import Catalog
from labelport.errors import InvalidRange
from labelport.model import ByteRange, ObjectMeta, Storage
from labelport.stores._http import HttpStore
from labelport.stores.aws_credentials import AwsCredentials, FixedCredentials
from labelport.stores.memory import MemoryStore, MemoryStream
from labelport.stores.s3 import S3Dialect
from labelport_proxy.app import transport_of
from loopback import reply
from proxies import Answer, Client, Running, project, settings, somebody, storage
from served import served
from upstreams import upstream_server

OCTETS = "application/octet-stream"
BODY = b"<script>alert(document.cookie)</script>"

#: All that an answer with an object may hold. `date` is the server's, the rest is the proxy's.
ALLOWED = {
    *("accept-ranges", "cache-control", "content-disposition", "content-length", "content-type"),
    *("content-security-policy", "cross-origin-resource-policy", "date", "etag", "last-modified"),
    *("referrer-policy", "vary", "x-content-type-options", "x-request-id"),
}


class Shelf:
    """Objects whose store says of them what their author likes; opens storages."""

    def __init__(self) -> None:
        self.metas: dict[str, ObjectMeta] = {}

    def __call__(self, storage: Storage) -> _Store:
        return _Store(storage.bucket, self.metas)


class _Store(MemoryStore):
    def __init__(self, bucket: str, metas: dict[str, ObjectMeta]) -> None:
        super().__init__(bucket)
        self._metas = metas

    async def head(self, key: str) -> ObjectMeta:
        return self._metas[key]

    @asynccontextmanager
    async def open(
        self, key: str, byte_range: ByteRange | None = None, *, etag: str | None = None
    ) -> AsyncIterator[MemoryStream]:
        body = BODY[byte_range.start : byte_range.stop] if byte_range else BODY
        if byte_range and not body:
            raise InvalidRange("the object ends before")
        yield MemoryStream(body, self._metas[key])


class Site(NamedTuple):
    catalog: Catalog
    running: Running
    shelf: Shelf
    client: Client
    project_id: int

    def get(self, key: str, **says: str) -> Answer:
        """An object called *key* that says this of itself."""
        meta = ObjectMeta(key, len(BODY), "an-etag", datetime(2024, 5, 1, tzinfo=UTC))
        self.shelf.metas[key] = meta._replace(**says)
        return self.client.get("projects", self.project_id, f"memory://hostile/{key}")


@pytest.fixture(scope="module")
def site(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    shelf = Shelf()
    with served(sqlite_template, tmp_path_factory.mktemp("hostile"), shelf) as (catalog, running):
        number = project(catalog, "cats")
        storage(catalog, number, "photos", "memory://hostile", serve_any_key=True)
        client = running.as_user(somebody(catalog, "ann@example.org", number).secret)
        yield Site(catalog, running, shelf, client, number)


def is_guarded(answer: Answer) -> bool:
    """Nothing in it runs, whatever it is taken for."""
    headers = answer.headers
    return (
        headers["x-content-type-options"] == "nosniff"
        and headers["content-security-policy"] == "sandbox; default-src 'none'"
        and headers["referrer-policy"] == "no-referrer"
        and headers["cross-origin-resource-policy"] == "same-origin"
    )


#: What the store says of an object called ``a``, what we say, and whether a browser may show it.
TYPES = {
    "HTML": ("text/html", "text/html", False),
    "HTML in capitals": ("TEXT/HTML", "text/html", False),
    "HTML in UTF-7": ("text/html; charset=utf-7", "text/html; charset=utf-7", False),
    "HTML with a blank": (" text/html ", "text/html", False),
    "XHTML": ("application/xhtml+xml", "application/xhtml+xml", False),
    "XML": ("text/xml", "text/xml", False),
    "XML of an application": ("application/xml", "application/xml", False),
    "XSL": ("text/xsl", "text/xsl", False),
    "a feed": ("application/rss+xml", "application/rss+xml", False),
    "SVG": ("image/svg+xml", "image/svg+xml", False),
    "SVG in capitals": ("IMAGE/SVG+XML", "image/svg+xml", False),
    "SVG, shorter": ("image/svg", "image/svg", False),
    "JavaScript": ("text/javascript", OCTETS, False),
    "JavaScript of an application": ("application/javascript", OCTETS, False),
    "old JavaScript": (
        "application/x-javascript; charset=utf-8",
        f"{OCTETS}; charset=utf-8",
        False,
    ),
    "ECMAScript": ("application/ecmascript", OCTETS, False),
    "CSS": ("text/css", OCTETS, False),
    "WebAssembly": ("application/wasm", OCTETS, False),
    "Flash": ("application/x-shockwave-flash", OCTETS, False),
    "a web archive": ("multipart/related", OCTETS, False),
    "a web archive of a file": ("application/x-mimearchive", "application/x-mimearchive", False),
    "parts that replace each other": ("multipart/x-mixed-replace; boundary=x", OCTETS, False),
    "a message": ("message/rfc822", OCTETS, False),
    "a cache manifest": ("text/cache-manifest", "text/cache-manifest", False),
    "unknown": ("x-world/x-vrml", "x-world/x-vrml", False),
    "anything": ("*/*", OCTETS, False),
    "two": ("image/png, text/html", OCTETS, False),
    "two, the other way": ("image/png; text/html", "image/png", True),
    "nothing": ("", OCTETS, False),
    "half": ("image", OCTETS, False),
    "half and a slash": ("image/", OCTETS, False),
    "another header": ("image/png\r\nX-Evil: 1", OCTETS, False),
    "another header after a parameter": ("image/png; x=\r\nX-Evil: 1", OCTETS, False),
    "another header in the charset": ("text/plain; charset=a\r\nX-Evil: 1", OCTETS, False),
    "a bare return": ("image/png;\rX-Evil: 1", "image/png", True),
    "NUL": ("image/png\0", OCTETS, False),
    "NUL after a parameter": ("image/png; \0", "image/png", True),
    "not ASCII": ("image/pñg", OCTETS, False),
    "not ASCII after a parameter": ("image/png; ü=ü", "image/png", True),
    "letters that look like ASCII": ("ımage/png", OCTETS, False),
    "more of them": ("text/javaſcript", OCTETS, False),
    "half a surrogate pair": ("image/png\ud800", OCTETS, False),
    "garbage": ("\x01\x02;=/" * 2_500, OCTETS, False),
    "endless": ("image/" + "x" * 10_000, OCTETS, False),
    "endless blanks": ("image/png" + " " * 10_000, "image/png", True),
    "endless blanks and more": ("image/png" + " " * 10_000 + "x", OCTETS, False),
    "endless semicolons": ("image/png" + ";" * 10_000, "image/png", True),
    "endless charset": ("text/plain; charset=" + "x" * 10_000, "text/plain", True),
    "PNG": ("image/png", "image/png", True),
    "video": ("video/mp4", "video/mp4", True),
    "text": ("text/plain; charset=UTF-8", "text/plain; charset=utf-8", True),
    "text with a quoted charset": ('text/plain;charset="utf-8"', "text/plain; charset=utf-8", True),
    "text with more": ("text/plain; charset=utf-8; x=y", "text/plain; charset=utf-8", True),
    "PDF": ("application/pdf", "application/pdf", True),
}


@pytest.mark.parametrize(("says", "served_as", "shown"), TYPES.values(), ids=TYPES)
def test_a_type_that_could_run_is_never_shown(site, says, served_as, shown):
    answer = site.get("a", content_type=says)

    assert answer.status == 200
    assert answer.headers["content-type"] == served_as
    assert answer.headers["content-disposition"].partition(";")[0] == (
        "inline" if shown else "attachment"
    )
    assert is_guarded(answer)
    assert set(answer.headers) == ALLOWED
    assert answer.body == BODY


#: Where the store tells no type, the ending does.
ENDINGS = {
    "a.html": ("text/html", False),
    "a.HTM": ("text/html", False),
    "a.svg": ("image/svg+xml", False),
    "a.xml": ("text/xml", False),
    "a.js": (OCTETS, False),
    "a.mjs": (OCTETS, False),
    "a.css": (OCTETS, False),
    "a.wasm": (OCTETS, False),
    "a.swf": (OCTETS, False),
    "a.mht": (OCTETS, False),
    "a.eml": (OCTETS, False),
    "a.png.html": ("text/html", False),
    "a.html/b": (OCTETS, False),
    "html": (OCTETS, False),
    ".html": (OCTETS, False),
    "a.html?.png": ("image/png", True),
    "a.html#.png": ("image/png", True),
    "a.html%00.png": ("image/png", True),
    "a.html .png": ("image/png", True),
    "a.svgz": (OCTETS, False),
    "a.csv.gz": (OCTETS, False),
    "data:text/html,a.png": ("image/png", True),
    "a.png": ("image/png", True),
    "a.webm": ("video/webm", True),
    "a.csv": ("text/csv", True),
}


@pytest.mark.parametrize("says", ["", OCTETS, "binary/octet-stream", "no type"])
@pytest.mark.parametrize(("key", "expected"), ENDINGS.items(), ids=ENDINGS)
def test_an_ending_chooses_no_type_that_could_run_either(site, key, expected, says):
    answer = site.get(key, content_type=says)
    served_as, shown = expected

    assert answer.headers["content-type"] == served_as
    assert answer.headers["content-disposition"].startswith("inline" if shown else "attachment")
    assert is_guarded(answer)


NAMES = [
    'quo"te.png',
    'a"; filename=evil.html; x=".png',
    "semi;colon.png",
    "it's.png",
    "per%cent%0d%0aX-Evil: 1.png",
    "com,ma.png",
    "two  blanks .png",
    "ünïcode.png",
    "日本語.png",
    "\U0001f600.png",
    "right\u202eto left.png",
    "line\u2028separator.png",
    "next\x85line.png",
    "no-break\xa0space.png",
    "*?.png",
    "<img src=x>.png",
    "long-" + "x" * 900 + ".png",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_one_file_name_and_nothing_more(site, name):
    answer = site.get(f"folder/{name}")
    shown, _, parameter = answer.headers["content-disposition"].partition("; ")

    assert answer.status == 200
    assert shown == "inline"
    assert set(answer.headers) == ALLOWED
    name_of, _, value = parameter.partition("=UTF-8''")
    assert name_of == "filename*"
    assert unquote(value) == name
    assert not set(value) & set("\"'\\;, ")
    assert value.isascii()


@pytest.mark.parametrize(
    "key", ["a\r\nX-Evil: 1.png", "a\n.png", "a\0.png", "a\x7f.png", "a\t.png"]
)
def test_a_name_with_a_control_character_is_no_uri(site, key):
    assert site.get(key).status == 400


@pytest.mark.parametrize(
    ("says", "served_as"),
    [
        ("gzip", "gzip"),
        ("GZIP", "gzip"),
        ("br", "br"),
        ("", None),
        ("identity", None),
        ("gzip, br", None),
        ("aws-chunked", None),
        ("gzip\r\nX-Evil: 1", None),
        ("gzıp", None),
        ("x" * 10_000, None),
    ],
)
def test_an_encoding_is_one_that_browsers_know(site, says, served_as):
    answer = site.get("a.txt", content_encoding=says)

    assert answer.headers.get("content-encoding") == served_as
    assert set(answer.headers) - {"content-encoding"} == ALLOWED


@pytest.mark.parametrize("etag", ['"x"', "x\r\nX-Evil: 1", "é\ud800", "", "x" * 10_000])
def test_an_etag_is_ours(site, etag):
    answer = site.get("a.png", etag=etag)

    assert answer.status == 200
    assert len(answer.headers.get("etag", "")) == (34 if etag else 0)
    assert set(answer.headers) | {"etag"} == ALLOWED
    if etag:
        assert etag not in answer.headers["etag"]


SAYS = {
    "Access-Control-Allow-Credentials": "true",
    "Access-Control-Allow-Origin": "https://evil.example",
    "Alt-Svc": 'h3="evil.example:443"',
    "Cache-Control": "public, max-age=31536000",
    "Clear-Site-Data": '"cookies"',
    "Content-Disposition": 'inline; filename="evil.html"',
    "Content-Language": "en",
    "Content-Location": "https://evil.example/",
    "Content-Security-Policy": "script-src *",
    "Content-Type": "text/html",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "ETag": '"the-objects-own"',
    "Last-Modified": "Wed, 01 May 2024 00:00:00 GMT",
    "Link": "<https://evil.example/a.js>; rel=preload; as=script",
    "Location": "https://evil.example/",
    "Refresh": "0; url=https://evil.example/",
    "Server": "evil",
    "Service-Worker-Allowed": "/",
    "Set-Cookie": "labelport_session=evil; Path=/",
    "SourceMap": "https://evil.example/a.map",
    "Strict-Transport-Security": "max-age=0",
    "Vary": "*",
    "X-Content-Type-Options": "sniff",
    "X-Request-Id": "evil-evil-evil",
    "x-amz-meta-evil": "1",
    "x-amz-request-id": "an-id",
    "x-amz-website-redirect-location": "https://evil.example/",
}


@pytest.mark.parametrize(("ask", "status"), [({}, 200), ({"Range": "bytes=0-3"}, 206)], ids=str)
def test_of_a_stores_headers_only_what_is_known_is_told(sqlite_template, tmp_path, ask, status):
    """By the client that reads real stores."""
    ranged = {"Content-Range": f"bytes 0-3/{len(BODY)}"} if ask else {}
    with upstream_server() as upstream:
        key = upstream.will(reply(status, BODY[:4] if ask else BODY, SAYS | ranged))
        credentials = FixedCredentials(AwsCredentials("AKIDEXAMPLE", "a-secret"))

        def opener(storage: Storage) -> HttpStore:
            dialect = S3Dialect(storage.bucket, credentials, endpoint=upstream.url)
            return HttpStore(dialect, transport_of(settings()))

        with served(sqlite_template, tmp_path, opener) as (catalog, running):
            number = project(catalog, "cats")
            given = {"serve_any_key": True, "presign": False}
            storage(catalog, number, "photos", "s3://hostile", **given)
            client = running.as_user(somebody(catalog, "ann@example.org", number).secret)
            answer = client.get("projects", number, f"s3://hostile/{key}", ask)

    assert answer.status == status
    assert set(answer.headers) == ALLOWED | ({"content-range"} if ask else set())
    assert is_guarded(answer)
    assert "evil" not in str(answer.headers)
    assert "the-objects-own" not in answer.headers["etag"]
    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.headers["cache-control"].startswith("private")
    assert "*" not in answer.headers["vary"]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    "ask", [{}, {"Range": "bytes=0-3"}, {"If-None-Match": "*"}, {"Range": "bytes=900-"}], ids=str
)
def test_every_answer_has_the_guards(site, method, ask):
    """Parts of an object, too; what tells nothing of one is no page."""
    site.get("page.html", content_type="text/html")
    target = f"/projects/{site.project_id}/resolve/?fileuri=memory://hostile/page.html"
    answer = site.client.send(method, target, ask)

    assert answer.status in (200, 206, 304, 416)
    if answer.status in (200, 206):
        assert is_guarded(answer)
        assert answer.headers["content-disposition"].startswith("attachment")
    elif answer.status == 416:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-type"] == "application/json"
    assert not set(answer.headers) - ALLOWED - {"content-range"}
