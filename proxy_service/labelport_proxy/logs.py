"""Logs as JSON, a line an event, without anything that would open a store."""

from __future__ import annotations

import asyncio
import logging
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import TextIO

import msgspec

#: Query strings that are, or hold, signatures, wherever they turn up.
_SIGNED = re.compile(
    r"(?i)((?:x-amz-|x-goog-)?(?:signature|credential|security-token)|sig|token|secret|password)"
    r"(=|%3D)[^&\s\"'<>]+"
)
_BEARER = re.compile(r"(?i)\b(bearer|token) [\w.~+/=-]{8,}")
_MOMENT_SECONDS = 0.1
_encode = msgspec.json.Encoder().encode


class JsonFormatter(logging.Formatter):
    """One JSON object a record; ``extra={"fields": {…}}`` adds to it."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": scrubbed(record.getMessage()),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = scrubbed(self.formatException(record.exc_info))
        return _encode(line).decode()


class Lines(logging.StreamHandler[TextIO]):
    """Writes the lines of a moment at once: one by one, they would cost more than the requests."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._due: asyncio.TimerHandle | None = None
        self.patient = True  #: whether lines may wait for more of them

    def flush(self) -> None:
        """Write soon; at once where no event loop runs."""
        try:
            loop = asyncio.get_running_loop() if self.patient else None
        except RuntimeError:
            loop = None
        if loop is None:
            self.write()
        elif self._due is None:
            self._due = loop.call_later(_MOMENT_SECONDS, self.write)

    def emit(self, record: logging.LogRecord) -> None:
        """A warning waits for nothing."""
        super().emit(record)
        if record.levelno >= logging.WARNING:
            self.write()

    def write(self) -> None:
        """Write what waits."""
        self._due = None
        super().flush()


@cache
def _lines() -> Lines:
    """The one handler of this process."""
    stream = open(sys.stderr.fileno(), "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    handler = Lines(stream)
    handler.setFormatter(JsonFormatter())
    return handler


def say(logger: logging.Logger, message: str, fields: Mapping[str, object]) -> None:
    """`logger.info` with ``fields``, for every request: a record would cost more than the line.

    Nothing is scrubbed. Where `configure` was not called, it is a record after all.
    """
    if not _lines.cache_info().currsize:
        logger.info(message, extra={"fields": fields})
        return
    line: dict[str, object] = {
        "time": datetime.now(UTC),
        "level": "info",
        "logger": logger.name,
        "message": message,
    }
    handler = _lines()
    handler.stream.write(_encode({**line, **fields}).decode() + "\n")
    handler.flush()


def scrubbed(text: str) -> str:
    """*text* without signatures and tokens."""
    return _BEARER.sub(r"\1 …", _SIGNED.sub(r"\1\2…", text))


def configure(level: str) -> None:
    """Send every log of this process to standard error, as JSON."""
    # What no line of ours shows, and each record would otherwise find out.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = _lines()
    # Not by the root's handler alone: Airflow, when it is imported for a connection, takes that.
    for name in ("labelport", "labelport_proxy", "uvicorn", "uvicorn.error", None):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(level.upper())
    # uvicorn would write each request's query, which may be a signed link.
    logging.getLogger("uvicorn.access").disabled = True
    for chatty in ("airflow", "alembic", "botocore"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def hasten() -> None:
    """Write every line at once from now on: the process ends, perhaps by a signal."""
    if _lines.cache_info().currsize:
        _lines().patient = False
        _lines().write()
