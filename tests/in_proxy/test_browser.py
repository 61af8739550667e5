"""What a labeler's browser makes of the proxy's answers, in a real Chromium."""

from __future__ import annotations

import asyncio
import shutil
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import media_files
import origin as origins
from browser import MISSING, Browser, chromium, program
from buckets import Bucket
from labelport import links
from labelport.catalog import Catalog
from labelport.model import ByteRange, ObjectMeta, Storage
from labelport.resolving import proxy_url
from labelport.stores import ObjectStream, Store
from labelport.stores._http import HttpStore
from labelport.stores.aws_credentials import AwsCredentials, FixedCredentials
from labelport.stores.local import LocalStore
from labelport.stores.s3 import S3Dialect
from labelport_proxy.identifying import COOKIE
from origin import Origin
from proxies import SECRET, Somebody, project, proxy, somebody, storage, task
from servers import S3Server

pytestmark = pytest.mark.skipif(program() is None, reason=MISSING)

RANGE_SIZE = 256 * 1024


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def origin() -> Iterator[Origin]:
    with origins.serving() as origin:
        yield origin


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for media, which stay in it once they are made."""
    return tmp_path_factory.mktemp("media")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder, for a bucket."""
    folder = tmp_path / "bucket"
    folder.mkdir()
    return folder


@dataclass(frozen=True)
class Task:
    """A task that refers to one object, and somebody who labels it."""

    id: int
    uri: str
    labeler: Somebody
    proxy: str  #: URL of the proxy itself

    @property
    def path(self) -> str:
        """Where the object is on the origin, for those who are logged in."""
        return proxy_url("", "tasks", self.id, self.uri)

    def at(self, host: str) -> str:
        """Where it is on the proxy itself: another origin, of the same site if *host* is."""
        return f"http://{host}:{urlsplit(self.proxy).port}{self.path}"

    def link(self, base: str = "") -> str:
        """Where it is for whoever has the link."""
        expires = int(time.time()) + 600
        given = {"secret": SECRET, "user_id": self.labeler.id, "expires": expires}
        return links.signed_url(base, "tasks", self.id, self.uri, **given)


Serve = Callable[..., Task]


@pytest.fixture
def serve(sqlite_template: Path, tmp_path: Path, origin: Origin) -> Iterator[Serve]:
    """Starts a proxy behind the origin, for one object of a store."""

    def serve(location: str, key: str, opener: Callable[[Storage], Store], **settings: Any) -> Task:
        presign = settings.pop("presign", False)
        path = shutil.copy(sqlite_template, tmp_path / "catalog.db")
        catalog = Catalog(f"sqlite:///{path}")
        project_id = project(catalog, "Films")
        storage(catalog, project_id, "media", location, presign=presign)
        uri = f"{location}/{key}"
        task_id = task(catalog, project_id, {"media": uri})
        labeler = somebody(catalog, "ann@example.org", project_id)
        running = stack.enter_context(proxy(catalog, opener, **settings))
        origin.upstream = running.url
        return Task(task_id, uri, labeler, running.url)

    with ExitStack() as stack:
        yield serve


@pytest.fixture
def serve_file(serve: Serve) -> Serve:
    """Starts a proxy for one file."""

    def serve_file(path: Path, **settings: Any) -> Task:
        root, bucket = path.parent.parent, path.parent.name
        return serve(f"file://{bucket}", path.name, lambda _: LocalStore(root, bucket), **settings)

    return serve_file


PLAY = """
const play = async (url, rate = 1) => {
  const media = document.createElement('video');
  const heard = (name, holds = () => true) => new Promise((done, failed) => {
    media.addEventListener(name, () => { if (holds()) done(); });
    media.addEventListener('error', () => failed(new Error(media.error.message)));
  });
  const passes = (time) => heard('timeupdate', () => media.currentTime >= time);
  media.muted = true;
  media.src = url;
  media.playbackRate = rate;
  document.body.append(media);
  await heard('loadedmetadata');
  await media.play();
  await passes(0.2);
  const seek = async (time) => {
    const arrived = heard('seeked');
    media.currentTime = time;
    await arrived;
    const there = media.currentTime;
    await passes(there + 0.2);
    return there;
  };
  return {media, passes, seek};
};
const playAndSeek = async (url) => {
  const {media, seek} = await play(url);
  const {duration, videoWidth: width} = media;
  return {duration, width, end: await seek(duration - 2), back: await seek(3)};
};
"""


def check_played(found: Any, name: str) -> None:
    assert found["duration"] == pytest.approx(media_files.SECONDS, abs=0.2)
    assert found["end"] == pytest.approx(found["duration"] - 2, abs=0.1)
    assert found["back"] == pytest.approx(3, abs=0.1)
    assert found["width"] == (0 if name.startswith("sound") else 320)


@pytest.mark.parametrize("name", media_files.SOUNDS_AND_FILMS)
def test_media_play_and_seek_through_the_proxy(
    browser: Browser, origin: Origin, serve_file: Serve, media: Path, name: str
) -> None:
    path = media_files.make(name, media)
    task = serve_file(path, max_range_size=RANGE_SIZE)

    found = browser.run(
        origin,
        f"{PLAY} await logIn('{task.labeler.secret}'); return playAndSeek('{task.path}')",
    )

    check_played(found, name)
    _, *answers = origin.passed
    assert path.stat().st_size > RANGE_SIZE
    assert len(answers) > 1
    assert {answer.status for answer in answers} == {206}
    assert max(int(answer.headers["content-length"]) for answer in answers) == RANGE_SIZE


class SlowStore(LocalStore):
    """Files that come at about 210 KB/s."""

    @asynccontextmanager
    async def open(
        self, key: str, byte_range: ByteRange | None = None, *, etag: str | None = None
    ) -> AsyncIterator[ObjectStream]:
        async with super().open(key, byte_range, etag=etag) as stream:
            yield Drip(stream)


class Drip:
    def __init__(self, stream: ObjectStream) -> None:
        self._stream = stream
        self.meta: ObjectMeta = stream.meta

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            await asyncio.sleep(0.15)  # what makes it slow
            yield chunk


@pytest.mark.parametrize("name", ["fast.mp4", "film.webm"])
def test_a_film_goes_on_when_answers_reach_their_time_limit(
    browser: Browser, origin: Origin, serve: Serve, media: Path, name: str
) -> None:
    path = media_files.make(name, media)
    store = SlowStore(media.parent, media.name, chunk_bytes=32 * 1024)
    task = serve(f"file://{media.name}", path.name, lambda _: store, timeout=1.0)

    position = browser.run(
        origin,
        f"""{PLAY}
        await logIn('{task.labeler.secret}');
        const {{media, passes}} = await play('{task.path}', 4);
        await passes(16);
        return media.currentTime""",
    )

    assert position >= 16
    _, *answers = origin.passed
    assert {answer.status for answer in answers} == {206}
    assert sum(answer.cut for answer in answers) > 1


@pytest.mark.parametrize("name", media_files.SOUNDS_AND_FILMS)
def test_media_play_and_seek_where_the_proxy_redirects_to(
    browser: Browser, origin: Origin, serve: Serve, media: Path, weed: S3Server, name: str
) -> None:
    bucket = Bucket(weed, f"media-{uuid.uuid4().hex[:12]}")
    bucket.put({name: media_files.make(name, media).read_bytes()})
    bucket.client.close()
    credentials = FixedCredentials(AwsCredentials(weed.access_key_id, weed.secret_access_key))
    dialect = S3Dialect(bucket.name, credentials, endpoint=weed.endpoint)
    task = serve(f"s3://{bucket.name}", name, lambda _: HttpStore(dialect), presign=True)

    found = browser.run(
        origin,
        f"{PLAY} await logIn('{task.labeler.secret}'); return playAndSeek('{task.path}')",
    )

    check_played(found, name)
    _, *answers = origin.passed
    assert {answer.status for answer in answers} == {303}
    assert all(answer.headers["location"].startswith(weed.endpoint) for answer in answers)


@pytest.mark.parametrize("name", media_files.PICTURES)
def test_a_picture_shows(
    browser: Browser, origin: Origin, serve_file: Serve, media: Path, name: str
) -> None:
    task = serve_file(media_files.make(name, media))

    found = browser.run(
        origin,
        f"""
        await logIn('{task.labeler.secret}');
        const image = await shows('{task.path}');
        const canvas = document.createElement('canvas');
        canvas.width = image.naturalWidth;
        canvas.height = image.naturalHeight;
        const context = canvas.getContext('2d');
        context.drawImage(image, 0, 0);
        const pixel = [...context.getImageData(16, 12, 1, 1).data];
        return {{size: [canvas.width, canvas.height], pixel}}""",
    )

    red, green, blue, _ = found["pixel"]
    assert found["size"] == [32, 24]
    assert red > 200 and green < 50 and blue < 50


#: Says where it runs and what it can read, and leaves a cookie.
_SCRIPT = """
fetch('/home', {method: 'POST', body: JSON.stringify([location.pathname, document.cookie])});
document.cookie = 'planted=1; path=/';
"""
_XHTML = "http://www.w3.org/1999/xhtml"
DOCUMENTS = {
    "page.html": f"<!doctype html><title>x</title><script>{_SCRIPT}</script>",
    "page.xhtml": f'<html xmlns="{_XHTML}"><body><script>{_SCRIPT}</script></body></html>',
    "drawing.svg": f'<svg xmlns="http://www.w3.org/2000/svg"><script>{_SCRIPT}</script></svg>',
}
OPEN = """
const show = (path) => {
  const frame = document.createElement('iframe');
  frame.src = path;
  document.body.append(frame);
  window.open(path);
};
"""
GUARDS = ("content-disposition", "content-security-policy")


@pytest.mark.parametrize("removed", [(), *((guard,) for guard in GUARDS)], ids=str)
@pytest.mark.parametrize("name", DOCUMENTS)
def test_no_script_of_a_stored_document_runs(
    browser: Browser,
    origin: Origin,
    serve_file: Serve,
    folder: Path,
    name: str,
    removed: tuple[str, ...],
) -> None:
    """Nor does it without either of the two headers that forbid it; without both, it does."""
    (folder / name).write_text(DOCUMENTS[name])
    task = serve_file(folder / name, cache_timeout=0)
    guarded = f"/without/{','.join(removed)}{task.path}" if removed else task.path
    bare = f"/without/{','.join(GUARDS)}{task.path}"

    cookies = browser.run(
        origin,
        f"""{OPEN}
        await logIn('{task.labeler.secret}');
        document.cookie = 'readable=1; path=/';
        show('{guarded}');
        await seen({{answers: 3}});
        const before = document.cookie;
        show('{bare}');
        await seen({{beacons: 2}});
        return [before, document.cookie]""",
    )

    assert cookies == ["readable=1", "readable=1; planted=1"]
    assert [answer.status for answer in origin.passed] == [201, 200, 200, 200, 200]
    ran = [beacon.body for beacon in origin.beacons]
    assert [path for path, _ in ran] == [bare.partition("?")[0]] * 2
    assert all(COOKIE in beacon.cookie for beacon in origin.beacons)


def test_other_sites_show_media_by_signed_links_only(
    browser: Browser, origin: Origin, serve_file: Serve, media: Path
) -> None:
    """The session's cookie is not sent from there: SameSite=Lax."""
    task = serve_file(media_files.make("still.png", media))
    browser.run(
        origin,
        f"""
        await logIn('{task.labeler.secret}');
        if (!await shows('{task.path}')) throw new Error('not shown at home')""",
    )

    shown = browser.run(
        origin,
        f"""
        const urls = ['{origin.url}{task.path}', '{task.link(origin.url)}'];
        return [await shows(urls[0]) !== null, await shows(urls[1]) !== null]""",
        at=origin.elsewhere(),
    )

    assert shown == [False, True]
    assert [answer.status for answer in origin.passed] == [201, 200, 401, 200]
    assert "cookie" not in origin.passed[-2].asked


@pytest.mark.parametrize("allowed", [False, True], ids=["stranger", "allowed"])
def test_another_origin_of_the_site_shows_media_if_it_is_allowed(
    browser: Browser, origin: Origin, serve_file: Serve, media: Path, allowed: bool
) -> None:
    """The session's cookie is sent from there, so the proxy has to say who may embed."""
    origins = (origin.url,) if allowed else ()
    task = serve_file(media_files.make("still.png", media), allowed_origins=origins)

    shown = browser.run(
        origin,
        f"""
        await logIn('{task.labeler.secret}');
        return await shows('{task.at(origin.host)}') !== null""",
    )

    assert shown is allowed


#: Asked with the cookie; with a token and for the end, which a browser asks leave for first.
_READS = {
    "cookie": ("{credentials: 'include', headers: {Range: 'bytes=2-5'}}", "bytes 2-5/10"),
    "token": ("{headers: {Range: 'bytes=-3', Authorization: 'Bearer TOKEN'}}", "bytes 7-9/10"),
}


@pytest.mark.parametrize("allowed", [False, True], ids=["stranger", "allowed"])
@pytest.mark.parametrize("options, content_range", _READS.values(), ids=_READS)
def test_only_scripts_of_allowed_origins_read_ranges(
    browser: Browser,
    origin: Origin,
    serve_file: Serve,
    folder: Path,
    options: str,
    content_range: str,
    allowed: bool,
) -> None:
    (folder / "ten.bin").write_bytes(b"0123456789")
    task = serve_file(
        folder / "ten.bin",
        allowed_origins=(origin.url if allowed else "https://app.example.org",),
    )

    found = browser.run(
        origin,
        f"""
        await logIn('{task.labeler.secret}');
        const options = {options.replace("TOKEN", task.labeler.secret)};
        try {{
          const answer = await fetch('{task.at(origin.host)}', options);
          return [answer.status, answer.headers.get('content-range'), await answer.text()];
        }} catch (error) {{
          return error.name;
        }}""",
    )

    first, last = (int(end) for end in content_range[6:-3].split("-"))
    read = [206, content_range, "0123456789"[first : last + 1]]
    assert found == (read if allowed else "TypeError")


def test_an_allowed_origin_reads_why_it_was_refused(
    browser: Browser, origin: Origin, serve_file: Serve, folder: Path
) -> None:
    (folder / "ten.bin").write_bytes(b"0123456789")
    task = serve_file(folder / "ten.bin", allowed_origins=(origin.url,))

    found = browser.run(
        origin,
        f"""
        const options = {{credentials: 'include', headers: {{Range: 'bytes=50-60'}}}};
        const ask = async () => {{
          const answer = await fetch('{task.at(origin.host)}', options);
          return [answer.status, answer.headers.get('content-range')];
        }};
        const before = await ask();
        await logIn('{task.labeler.secret}');
        return [before, await ask()]""",
    )

    assert found == [[401, None], [416, "bytes */10"]]


@pytest.mark.parametrize(
    "seconds, answers", [(0, [200, 304]), (60, [200])], ids=["revalidated", "kept"]
)
def test_a_picture_is_sent_once(
    browser: Browser,
    origin: Origin,
    serve_file: Serve,
    media: Path,
    seconds: int,
    answers: list[int],
) -> None:
    task = serve_file(media_files.make("still.png", media), cache_timeout=seconds)
    browser.run(origin, f"await logIn('{task.labeler.secret}'); await shows('{task.path}')")

    shown = browser.run(origin, f"return await shows('{task.path}') !== null")

    assert shown
    assert [answer.status for answer in origin.passed[1:]] == answers


def test_what_was_kept_is_for_the_same_session_only(
    browser: Browser, origin: Origin, serve_file: Serve, media: Path
) -> None:
    """By Vary. (Pictures that the browser still has in memory show without asking.)"""
    task = serve_file(media_files.make("still.png", media))
    browser.run(origin, f"await logIn('{task.labeler.secret}'); await shows('{task.path}')")

    status = browser.run(
        origin,
        f"""
        await fetch('/session', {{method: 'DELETE'}});
        return (await fetch('{task.path}')).status""",
    )

    assert status == 401
    assert [answer.status for answer in origin.passed] == [201, 200, 204, 401]
