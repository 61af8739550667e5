"""``python -m demo``: import a bucket, annotate, export to another one, serve the media, and stop.

With ``--stay`` everything keeps running until Ctrl-C, for looking around.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from demo import annotating, bucket, catalog, home, logs, media, screen, standalone, weed
from demo.exporting import export_all
from demo.importing import import_all
from demo.proxy import storage_proxy
from demo.screen import console, say
from demo.serving import serve_all


def main() -> int:
    """The exit status: 0 when all was imported, exported and served."""
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("--stay", action="store_true", help="keep running until Ctrl-C")
    parser.add_argument(
        "--home", type=Path, default=home.DEFAULT, help="a folder to use and empty (.demo)"
    )
    options = parser.parse_args()
    folder: Path = options.home.resolve()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        return _run(folder, options.stay)
    except KeyboardInterrupt:
        say("everything stopped")
        return 0 if options.stay else 130
    except home.Occupied as error:
        screen.show_failure(str(error))
        return 1
    except RuntimeError as error:
        screen.show_failure(str(error), logs.failures(folder))
        return 1


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _run(folder: Path, stay: bool) -> int:
    begun = time.monotonic()
    with ExitStack() as stack:
        stack.enter_context(home.occupied(folder))
        server = stack.enter_context(weed.weed_server(log=folder / "weed.log"))
        count = bucket.fill(server)
        say(f"S3 server at {server.endpoint}, {count} objects in s3://{bucket.BUCKET}")
        for source in (*media.SOURCES, "task files in JSON and JSONL about both"):
            console.print(f"    {source}")
        opened, storages = catalog.make(folder)
        stack.callback(opened.close)
        with console.status("Airflow starts …"):
            url, airflow = stack.enter_context(standalone.airflow(folder, server))
        say(f"Airflow at {url}")
        import_all(opened, airflow, [storages.media, storages.files])
        made = annotating.annotate(opened, storages.media)
        say(f"two people made {made} annotations, beside those that came with the task files")
        export_all(opened, airflow, server, storages.exports)
        proxy = stack.enter_context(storage_proxy(folder, server))
        say(f"storage proxy at {proxy.url}")
        link = serve_all(opened, proxy, storages.files)
        say(f"from nothing to here in {time.monotonic() - begun:.0f} s")
        if stay:
            screen.show_places(url, proxy.url, server, folder)
            screen.show_link(link)
            say("Ctrl-C stops everything")
            signal.pause()
    say("everything stopped")
    screen.show_next(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
