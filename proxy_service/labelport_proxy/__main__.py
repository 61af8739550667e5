"""``labelport-proxy``, or ``python -m labelport_proxy``: serve until SIGTERM."""

from __future__ import annotations

import argparse
import os
import resource
import signal
import sys
import tempfile
from contextlib import ExitStack

import uvicorn

from labelport import __version__
from labelport.errors import ConfigurationError
from labelport_proxy import logs, metrics
from labelport_proxy.server import Protocol
from labelport_proxy.settings import Settings

_MISUSED = 2
_MOST_FILES = 65_536
_EPILOG = """\
Everything is set by environment variables; docs/proxy.md has the table.
LABELPORT_PROXY_SECRET is required, and LABELPORT_CATALOG_URL says where the catalog is.
"""


def main() -> int:
    """Serve; the exit status."""
    parser = argparse.ArgumentParser(
        prog="labelport-proxy",
        description="Serve labelers the media of their tasks.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"labelport {__version__}")
    parser.parse_args()
    try:
        settings = Settings.from_environment()
    except ConfigurationError as error:
        sys.stderr.write(f"labelport-proxy: {error}\n")
        return _MISUSED
    logs.configure(settings.log_level)
    _raise_limit_of_files()
    # What Airflow says of connections does not come through our logs.
    os.environ.setdefault("AIRFLOW__LOGGING__JSON_LOGS", "True")
    # uvicorn raises it once more when everything has ended well, which is no death by a signal.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with ExitStack() as stack:
        if settings.workers > 1:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="labelport-metrics-"))
            os.environ[metrics.SHARED_FOLDER] = folder
        _serve(settings)
    return 0


def _raise_limit_of_files() -> None:
    """A stream takes two descriptors, and systems give 1,024 to whoever does not ask for more."""
    soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Without one, asyncio and others that count to it would not come to an end.
    wanted = _MOST_FILES if most == resource.RLIM_INFINITY else min(most, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def _serve(settings: Settings) -> None:
    uvicorn.run(
        "labelport_proxy.app:from_environment",
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        http=Protocol,
        loop="uvloop",
        ws="none",
        lifespan="on",
        log_config=None,
        log_level=settings.log_level.lower(),
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=settings.keep_alive_seconds,
        timeout_graceful_shutdown=settings.shutdown_seconds,
    )


if __name__ == "__main__":
    sys.exit(main())
