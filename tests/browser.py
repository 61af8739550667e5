"""Headless Chromium. A first page of ours opens in it whatever it is told to, one after another."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web

from demo.processes import process
from origin import Origin, listening

MISSING = "no Chromium: apt-get install chromium"
PAGE_SECONDS = 30.0

_FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-crash-reporter", "--disable-dev-shm-usage"),
    *("--autoplay-policy=no-user-gesture-required", "--disable-popup-blocking"),
)

_FIRST_PAGE = """<!doctype html><script type=module>
let page;
for (;;) {
  const url = await (await fetch('/next')).text();
  page?.close();
  page = window.open(url);
}
</script>"""


def program() -> str | None:
    """Where Chromium is, if it is installed."""
    return shutil.which("chromium")


class Browser:
    """Runs a page's script and returns what it found."""

    def __init__(self) -> None:
        self._next: asyncio.Queue[str] = asyncio.Queue()
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, origin: Origin, script: str, *, at: str = "") -> Any:
        """What *script* returns in a page of *origin*, which may be looked at *at* another URL."""
        origin.write_page(script)
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._next.put_nowait, at or origin.url)
        report = origin.reports.get(timeout=PAGE_SECONDS)
        assert "error" not in report, report["error"]
        return report.get("found")

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/", self._show)
        app.router.add_get("/next", self._tell)
        return app

    async def _show(self, request: web.Request) -> web.Response:
        return web.Response(text=_FIRST_PAGE, content_type="text/html")

    async def _tell(self, request: web.Request) -> web.Response:
        return web.Response(text=await self._next.get())

    @contextmanager
    def listening(self) -> Iterator[str]:
        """Serve the first page; its URL."""
        with listening(self.application()) as (port, self._loop):
            yield f"http://127.0.0.1:{port}/"


@contextmanager
def chromium() -> Iterator[Browser]:
    """Chromium with a new profile, ended with everything it started."""
    browser = Browser()
    path = program()
    assert path is not None, MISSING
    # What is killed may still write for a moment.
    profile = tempfile.TemporaryDirectory(prefix="labelport-chromium-", ignore_cleanup_errors=True)
    with profile as folder, browser.listening() as url:
        command = [path, *_FLAGS, f"--user-data-dir={folder}", url]
        env = {**os.environ, "HOME": folder}  # where downloads would go
        with process(command, folder, signal.SIGTERM, lambda: True, env=env):
            yield browser
