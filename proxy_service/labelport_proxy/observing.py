"""Around every request: its id, its record, and its error as JSON."""

from __future__ import annotations

import asyncio
import errno
import itertools
import re
import secrets

import msgspec
from sqlalchemy import exc
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from labelport.errors import LabelportError, StoreError
from labelport_proxy import metrics
from labelport_proxy.exchange import Exchange
from labelport_proxy.recording import Recorder, log
from labelport_proxy.refusing import Refusal, refusal_of

_REQUEST_ID = re.compile(rb"[\w.:-]{8,128}", re.ASCII)
_FORWARDED = frozenset((b"x-forwarded-for", b"x-forwarded-proto"))
_CATALOG_FAILED = (exc.OperationalError, exc.InterfaceError, exc.TimeoutError)
_WORDS = {404: "not_found", 405: "method_not_allowed"}
_encode = msgspec.json.Encoder().encode


class Observing:
    """ASGI middleware.

    :param trusted: addresses and networks of reverse proxies, whose word on the client is taken
    """

    def __init__(self, app: ASGIApp, recorder: Recorder, trusted: str) -> None:
        self._app = app
        self._forwarded: ASGIApp = ProxyHeadersMiddleware(app, trusted)  # type: ignore[arg-type, assignment]
        self._recorder = recorder
        self._process = secrets.token_hex(6)
        self._numbers = itertools.count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        headers = dict(scope["headers"])
        exchange = Exchange(scope, headers, send, self._request_id(headers.get(b"x-request-id")))
        scope["app"] = self  # so that Starlette raises what it refuses, and does not word it
        app = self._app if _FORWARDED.isdisjoint(headers) else self._forwarded
        try:
            await app(scope, receive, exchange.send)
        except (Exception, asyncio.CancelledError) as error:
            # Under no other name: an error and a frame that it came through would hold each other.
            if not await _answered(exchange, error):
                raise  # half an answer is out: the server closes the connection
        finally:
            self._recorder.add(exchange)
            exchange.close()

    def _request_id(self, given: bytes | None) -> str:
        """The one that a reverse proxy gave the request, or a new one."""
        if given is not None and _REQUEST_ID.fullmatch(given):
            return given.decode()
        return f"{self._process}{next(self._numbers):08x}"


async def _answered(exchange: Exchange, error: BaseException) -> bool:
    """Answer with what *error* comes to, as JSON. False: it is too late for that."""
    refusal = _refusal(exchange, error)
    exchange.outcome = refusal.error
    if exchange.status is not None:
        return False
    body = _encode(
        {
            "error": refusal.error,
            "detail": refusal.detail,
            "request_id": exchange.request_id,
        }
    )
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        *((n.lower().encode(), v.encode("latin-1")) for n, v in refusal.headers.items()),
    ]
    is_head = exchange.scope["method"] == "HEAD"
    await exchange.send(
        {"type": "http.response.start", "status": refusal.status, "headers": headers}
    )
    await exchange.send({"type": "http.response.body", "body": b"" if is_head else body})
    return True


def _refusal(exchange: Exchange, error: BaseException) -> Refusal:
    """What *error* comes to; the log says why, where the answer does not."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, LabelportError):
        refusal = refusal_of(error)
        if refusal.status >= 500:
            complain(exchange, error)
        return refusal
    if isinstance(error, HTTPException):
        word = _WORDS.get(error.status_code, "refused")
        return Refusal(error.status_code, word, error.detail, error.headers)
    if isinstance(error, asyncio.CancelledError):  # the server has no more time
        after = {"Retry-After": "1", "Connection": "close"}
        return Refusal(503, "shutting_down", "The proxy is being stopped.", after)
    return _unforeseen(exchange, error)


def _unforeseen(exchange: Exchange, error: BaseException) -> Refusal:
    """What the catalog's failure comes to, and our own."""
    extra = {"fields": {"request_id": exchange.request_id}}
    if isinstance(error, _CATALOG_FAILED):
        log.error("the catalog does not answer: %s", error, extra=extra)
        after = {"Retry-After": "1"}
        return Refusal(503, "catalog_unavailable", "The catalog does not answer.", after)
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        log.error("no more files can be open: raise the limit (ulimit -n)", extra=extra)
        return Refusal(503, "overloaded", "The proxy has too much to do.", {"Retry-After": "1"})
    log.error("internal error", exc_info=error, extra=extra)
    return Refusal(500, "internal_error", "The proxy failed; its log says why.")


def complain(exchange: Exchange, error: LabelportError, what: str = "") -> None:
    """Count an error, and say in the log what the answer does not, after *what*."""
    exchange.error = type(error).__name__
    metrics.upstream_errors.labels(exchange.error).inc()
    fields = {"request_id": exchange.request_id, "error": exchange.error}
    if isinstance(error, StoreError):
        fields["uri"] = error.uri
    log.warning("%s%s", what, error, extra={"fields": fields})
