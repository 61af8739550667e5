"""What the proxy counts, for Prometheus; over all processes where there are several."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
)

#: The folder where processes share their numbers; the library reads it from the environment.
SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_REGISTRY = CollectorRegistry()

#: ``redirect full partial head not_modified precondition_failed`` and each word of `refusing`.
requests = Counter(
    "labelport_proxy_requests", "Requests, by what they came to.", ["outcome"], registry=_REGISTRY
)
sent_bytes = Counter(
    "labelport_proxy_sent_bytes", "Bytes of bodies that were sent.", registry=_REGISTRY
)
first_byte_seconds = Histogram(
    "labelport_proxy_first_byte_seconds",
    "From a request to the head of its answer.",
    registry=_REGISTRY,
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
open_streams = Gauge(
    "labelport_proxy_open_streams",
    "Objects that are being streamed.",
    registry=_REGISTRY,
    multiprocess_mode="livesum",
)
upstream_errors = Counter(
    "labelport_proxy_upstream_errors",
    "What stores did wrong, by the class of the error.",
    ["error"],
    registry=_REGISTRY,
)
truncations = Counter(
    "labelport_proxy_truncations",
    "Answers that were cut off, by the reason.",
    ["reason"],
    registry=_REGISTRY,
)


def exposed() -> bytes:
    """All of it in Prometheus's text format."""
    if SHARED_FOLDER not in os.environ:
        return generate_latest(_REGISTRY)
    _forget_the_dead(Path(os.environ[SHARED_FOLDER]))
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)


def _forget_the_dead(folder: Path) -> None:
    """What a process had open ended with it, however it ended; what it counted stays."""
    for path in folder.glob("gauge_live*_*.db"):
        process = int(path.stem.rpartition("_")[2])
        # Another worker may be at it, too.
        with suppress(FileNotFoundError):
            if not _lives(process):
                multiprocess.mark_process_dead(process)  # type: ignore[no-untyped-call]


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
