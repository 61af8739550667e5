"""Around every request: its id, its line in the log, its numbers, and its error as JSON."""

from __future__ import annotations

import itertools
import logging
import re
import secrets
import time

import msgspec
from prometheus_client import Counter
from sqlalchemy import exc
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from labelport.errors import LabelportError, StoreError
from labelport_proxy import logs, metrics
from labelport_proxy.presenting import Headers
from labelport_proxy.refusing import Refusal, refusal_of

log = logging.getLogger("labelport_proxy.access")

_KEY = "labelport.exchange"
_REQUEST_ID = re.compile(rb"[\w.:-]{8,128}", re.ASCII)
_CATALOG_FAILED = (exc.OperationalError, exc.InterfaceError, exc.TimeoutError)
_WORDS = {404: "not_found", 405: "method_not_allowed"}
_encode = msgspec.json.Encoder().encode
#: Looked up once: finding a label's child takes longer than counting.
_COUNTERS: dict[str, Counter] = {}


class Exchange:
    """What is known of a request and its answer so far."""

    __slots__ = (
        *("begun", "bytes", "error", "first_byte", "outcome", "readers", "request_id", "status"),
        "user",
    )

    def __init__(self, request_id: bytes) -> None:
        self.begun = time.perf_counter()
        self.request_id = request_id
        self.user: int | None = None
        self.status: int | None = None  #: None: nothing was answered
        self.outcome = ""
        self.error: str | None = None  #: the class of what a store did wrong, or why we cut off
        self.first_byte: float | None = None  #: seconds after the request
        self.bytes = 0  #: of the body
        self.readers: Headers = []  #: lets scripts of another origin read the answer


def exchange_of(scope: Scope) -> Exchange:
    """The exchange that a request is part of."""
    found: Exchange = scope[_KEY]
    return found


class Observing:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._process = secrets.token_hex(6).encode()
        self._numbers = itertools.count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        given = next((v for n, v in scope["headers"] if n == b"x-request-id"), b"")
        fits = _REQUEST_ID.fullmatch(given)
        exchange = Exchange(given if fits else b"%b%08x" % (self._process, next(self._numbers)))
        scope[_KEY] = exchange
        scope["app"] = self  # so that Starlette raises what it refuses, and does not word it

        async def observed(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                exchange.first_byte = time.perf_counter() - exchange.begun
                said = [(b"x-request-id", exchange.request_id), *exchange.readers]
                message["headers"] = [*message["headers"], *said]
            else:
                exchange.bytes += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, observed)
        except (Refusal, LabelportError, HTTPException) as error:
            refusal = _refusal(error)
            exchange.outcome = refusal.error
            if isinstance(error, LabelportError) and refusal.status >= 500:
                complain(exchange, error)
            if exchange.status is not None:
                raise  # half an answer is out: the server closes the connection
            await respond(scope, observed, refusal)
        except Exception as error:
            refusal = _unforeseen(exchange, error)
            exchange.outcome = refusal.error
            if exchange.status is not None:
                raise
            await respond(scope, observed, refusal)
        finally:
            _record(scope, exchange)


async def respond(scope: Scope, send: Send, refusal: Refusal) -> None:
    """Answer with *refusal*, as JSON."""
    exchange = exchange_of(scope)
    body = _encode(
        {
            "error": refusal.error,
            "detail": refusal.detail,
            "request_id": _id(exchange),
        }
    )
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        *((n.lower().encode(), v.encode("latin-1")) for n, v in refusal.headers.items()),
    ]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if _is_head(scope) else body})


def _is_head(scope: Scope) -> bool:
    found: bool = scope["method"] == "HEAD"
    return found


def _refusal(error: Refusal | LabelportError | HTTPException) -> Refusal:
    if isinstance(error, Refusal):
        return error
    if isinstance(error, LabelportError):
        return refusal_of(error)
    word = _WORDS.get(error.status_code, "refused")
    return Refusal(error.status_code, word, error.detail, error.headers)


def _unforeseen(exchange: Exchange, error: Exception) -> Refusal:
    """What the catalog's failure comes to, and our own; the log says why."""
    extra = {"fields": {"request_id": _id(exchange)}}
    if isinstance(error, _CATALOG_FAILED):
        log.error("the catalog does not answer: %s", error, extra=extra)
        after = {"Retry-After": "1"}
        return Refusal(503, "catalog_unavailable", "The catalog does not answer.", after)
    log.error("internal error", exc_info=error, extra=extra)
    return Refusal(500, "internal_error", "The proxy failed; its log says why.")


def complain(exchange: Exchange, error: LabelportError, what: str = "") -> None:
    """Count an error, and say in the log what the answer does not, after *what*."""
    exchange.error = type(error).__name__
    metrics.upstream_errors.labels(exchange.error).inc()
    fields = {"request_id": _id(exchange), "error": exchange.error}
    if isinstance(error, StoreError):
        fields["uri"] = error.uri
    log.warning("%s%s", what, error, extra={"fields": fields})


def _record(scope: Scope, exchange: Exchange) -> None:
    outcome = exchange.outcome or ("none" if exchange.status is None else "ok")
    counter = _COUNTERS.get(outcome)
    if counter is None:
        counter = _COUNTERS[outcome] = metrics.requests.labels(outcome)
    counter.inc()
    if exchange.first_byte is not None:
        metrics.first_byte_seconds.observe(exchange.first_byte)
    if exchange.bytes:
        metrics.sent_bytes.inc(exchange.bytes)
    if not log.isEnabledFor(logging.INFO):
        return
    client = scope.get("client")
    fields = {
        "request_id": _id(exchange),
        "method": scope["method"],
        "path": scope["path"],  # never the query: it may be a signed link
        "status": exchange.status,
        "outcome": outcome,
        "user": exchange.user,
        "client": client[0] if client else None,
        "bytes": exchange.bytes,
        "first_byte_seconds": exchange.first_byte and round(exchange.first_byte, 6),
        "seconds": round(time.perf_counter() - exchange.begun, 6),
    }
    if exchange.error:
        fields["error"] = exchange.error
    logs.say(log, "request", fields)


def _id(exchange: Exchange) -> str:
    return exchange.request_id.decode("ascii")
