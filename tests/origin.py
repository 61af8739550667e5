"""An origin for a browser: pages of ours, and the proxy behind them as behind a reverse proxy."""

from __future__ import annotations

import asyncio
import json
import queue
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

_HOP_BY_HOP = ("connection", "keep-alive", "transfer-encoding", "host")

#: What every page's script may use.
_PRELUDE = """
const post = (path, value) => fetch(path, {method: 'POST', body: JSON.stringify(value)});
const logIn = async (token) => {
  const headers = {'content-type': 'application/json'};
  const answer = await fetch('/session', {method: 'POST', headers, body: JSON.stringify({token})});
  if (answer.status !== 201) throw new Error(`no session: ${await answer.text()}`);
};
const seen = (counts) => fetch('/seen?' + new URLSearchParams(counts));
const shows = (url) => new Promise((done) => {
  const image = new Image();
  image.onload = () => done(image);
  image.onerror = () => done(null);
  image.src = url;
  document.body.append(image);
});
"""


@dataclass(frozen=True)
class Passed:
    """An answer of the proxy that went through."""

    status: int
    headers: Mapping[str, str]  #: names in lower case
    size: int  #: bytes of the body that came
    cut: bool  #: whether the proxy ended it before its time
    asked: Mapping[str, str]  #: the request's headers, names in lower case


@dataclass(frozen=True)
class Beacon:
    """What a script that ran has sent home."""

    body: Any
    cookie: str  #: as the browser sent it along


class Origin:
    """Serves one page, hands ``/tasks/…`` and ``/session`` on, takes note of what passes.

    Any name below ``localhost`` leads here in a browser, and each is a site of its own.
    ``/without/a,b/tasks/…`` is ``/tasks/…`` but for the headers a and b of the answer.
    """

    def __init__(self) -> None:
        self.host = _name()
        self.port = 0
        self.upstream = ""  #: URL of the proxy
        self.passed: list[Passed] = []
        self.beacons: list[Beacon] = []
        self.reports: queue.Queue[Any] = queue.Queue()
        self._page = ""
        self._news = asyncio.Condition()

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def elsewhere(self) -> str:
        """The same server as another site."""
        return f"http://{_name()}:{self.port}"

    def write_page(self, script: str) -> None:
        """What ``/`` is from now on: it runs *script* and reports what that returns."""
        self._page = f"""<!doctype html><meta charset=utf-8><body><script type=module>
        {_PRELUDE}
        try {{
          await post('/report', {{found: await (async () => {{ {script} }})()}});
        }} catch (error) {{
          await post('/report', {{error: String(error)}});
        }}
        </script>"""

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/", self._show)
        app.router.add_post("/report", self._report)
        app.router.add_post("/home", self._home)
        app.router.add_get("/seen", self._seen)
        for prefix in ("", "/without/{names}"):
            for path in (r"/{target:tasks/.*}", "/{target:session}"):
                app.router.add_route("*", prefix + path, self._forward)
        return app

    async def _show(self, request: web.Request) -> web.Response:
        headers = {"cache-control": "no-store"}
        return web.Response(text=self._page, content_type="text/html", headers=headers)

    async def _report(self, request: web.Request) -> web.Response:
        self.reports.put(await request.json())
        return web.Response(status=204)

    async def _home(self, request: web.Request) -> web.Response:
        body = json.loads(await request.text())
        await self._note(self.beacons, Beacon(body, request.headers.get("cookie", "")))
        return web.Response(status=204)

    async def _seen(self, request: web.Request) -> web.Response:
        """Answer once so many answers and beacons have been seen."""
        answers, beacons = (int(request.query.get(name, 0)) for name in ("answers", "beacons"))
        async with self._news:
            await self._news.wait_for(
                lambda: len(self.passed) >= answers and len(self.beacons) >= beacons
            )
        return web.Response(status=204)

    async def _note(self, kept: list[Any], value: Passed | Beacon) -> None:
        async with self._news:
            kept.append(value)
            self._news.notify_all()

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        target = request.raw_path[request.raw_path.index("/" + request.match_info["target"][:5]) :]
        left_out = (*_HOP_BY_HOP, *request.match_info.get("names", "").split(","))
        asked = _without(request.headers, _HOP_BY_HOP)
        async with (
            aiohttp.ClientSession(auto_decompress=False) as client,
            client.request(
                request.method,
                URL(self.upstream + target, encoded=True),
                headers=asked,
                data=await request.read() or None,
                allow_redirects=False,
            ) as got,
        ):
            answer = web.StreamResponse(status=got.status, headers=_without(got.headers, left_out))
            await answer.prepare(request)
            size, cut = 0, False
            try:
                async for chunk in got.content.iter_any():
                    size += len(chunk)
                    await answer.write(chunk)
            except aiohttp.ClientPayloadError:
                cut = True
                if request.transport is not None:
                    request.transport.abort()
            finally:
                passed = Passed(got.status, _lower(got.headers), size, cut, _lower(asked))
                await self._note(self.passed, passed)
            return answer


def _name() -> str:
    return f"site-{uuid.uuid4().hex[:12]}.localhost"


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _without(headers: Mapping[str, str], names: tuple[str, ...]) -> CIMultiDict[str]:
    return CIMultiDict((n, v) for n, v in headers.items() if n.lower() not in names)


@contextmanager
def listening(app: web.Application) -> Iterator[tuple[int, asyncio.AbstractEventLoop]]:
    """Serve *app* on loopback from a thread of its own; the port, and that thread's loop."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    runner = web.AppRunner(app, shutdown_timeout=0, handler_cancellation=True)

    async def start() -> int:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return int(runner.addresses[0][1])

    try:
        yield asyncio.run_coroutine_threadsafe(start(), loop).result(10), loop
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


@contextmanager
def serving() -> Iterator[Origin]:
    """A new origin that is served until the block ends."""
    made = Origin()
    with listening(made.application()) as (made.port, _):
        yield made
