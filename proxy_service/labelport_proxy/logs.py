"""Logs as JSON, a line an event, without anything that would open a store."""

from __future__ import annotations

import logging
import re
import sys
from datetime import UTC, datetime

import msgspec

#: Query strings that are, or hold, signatures, wherever they turn up.
_SIGNED = re.compile(
    r"(?i)((?:x-amz-|x-goog-)?(?:signature|credential|security-token)|sig|token|secret|password)"
    r"(=|%3D)[^&\s\"'<>]+"
)
_BEARER = re.compile(r"(?i)\b(bearer|token) [\w.~+/=-]{8,}")
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


def scrubbed(text: str) -> str:
    """*text* without signatures and tokens."""
    return _BEARER.sub(r"\1 …", _SIGNED.sub(r"\1\2…", text))


def configure(level: str) -> None:
    """Send every log of this process to standard error, as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    # Airflow gives uvicorn's logger handlers of its own.
    logging.getLogger("uvicorn.error").handlers.clear()
    logging.getLogger("uvicorn.error").propagate = True
    # uvicorn would write each request's query, which may be a signed link.
    logging.getLogger("uvicorn.access").disabled = True
    logging.getLogger("alembic").setLevel(logging.WARNING)
