"""Logs as JSON, a line an event, without anything that would open a store."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Sequence
from contextlib import nullcontext
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
_encoder = msgspec.json.Encoder()


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
        return _encoder.encode(line).decode()


@cache
def _handler() -> logging.StreamHandler[TextIO]:
    """The one handler of this process."""
    stream = open(sys.stderr.fileno(), "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    handler: logging.StreamHandler[TextIO] = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    return handler


def write(logger: logging.Logger, lines: Sequence[msgspec.Struct]) -> None:
    """Log *lines*, which are as `JsonFormatter` would word them, as they are.

    Nothing is scrubbed. Where `configure` was not called, they become records after all.
    """
    if not _handler.cache_info().currsize:
        for line in lines:
            logger.info("request", extra={"fields": msgspec.to_builtins(line)})
        return
    handler = _handler()
    with handler.lock or nullcontext():
        handler.stream.write(_encoder.encode_lines(lines).decode())
        handler.flush()


def scrubbed(text: str) -> str:
    """*text* without signatures and tokens."""
    return _BEARER.sub(r"\1 …", _SIGNED.sub(r"\1\2…", text))


def configure(level: str) -> None:
    """Send every log of this process to standard error, as JSON."""
    # What no line of ours shows, and each record would otherwise find out.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = _handler()
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
