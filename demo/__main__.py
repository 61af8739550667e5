"""``python -m demo``: import a bucket through Airflow, show what came of it, and stop everything.

With ``--stay`` everything keeps running until Ctrl-C, for looking around.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from demo import bucket, catalog, media, screen, standalone, weed
from demo.importing import import_all
from demo.processes import tail
from demo.screen import console, say

HOME = Path(__file__).parent.parent / ".demo"


def main() -> int:
    """The exit status: 0 when both storages were imported."""
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("--stay", action="store_true", help="keep running until Ctrl-C")
    stay = parser.parse_args().stay
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        return _run(stay)
    except KeyboardInterrupt:
        say("everything stopped")
        return 0 if stay else 130
    except RuntimeError as error:
        screen.show_failure(str(error))
        return 1


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _run(stay: bool) -> int:
    begun = time.monotonic()
    shutil.rmtree(HOME, ignore_errors=True)
    HOME.mkdir()
    with ExitStack() as stack:
        server = stack.enter_context(weed.weed_server(log=HOME / "weed.log"))
        count = bucket.fill(server)
        say(f"S3 server at {server.endpoint}, {count} objects in s3://{bucket.BUCKET}")
        for source in (*media.SOURCES, "task files in JSON and JSONL about both"):
            console.print(f"    {source}")
        opened, storages = catalog.make(HOME)
        stack.callback(opened.close)
        with console.status("Airflow starts …"):
            url, airflow = stack.enter_context(standalone.airflow(HOME, server))
        say(f"Airflow at {url}")
        imported = import_all(opened, airflow, storages)
        if not imported:
            screen.show_failure("an import failed; the end of Airflow's log:")
            console.print(tail(HOME / "airflow.log"), markup=False)
        say(f"from nothing to here in {time.monotonic() - begun:.0f} s")
        if stay:
            screen.show_places(url, server, HOME)
            signal.pause()
    say("everything stopped")
    if imported:
        screen.show_next(HOME)
    return 0 if imported else 1


if __name__ == "__main__":
    sys.exit(main())
