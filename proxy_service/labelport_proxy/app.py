"""The application: everything opened, wired and closed."""

from __future__ import annotations

import asyncio
import gc
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import lru_cache, partial

from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from labelport import connections
from labelport.catalog import Catalog, storages
from labelport.model import Direction, Storage
from labelport.stores import Store
from labelport.stores._retrying import RetryPolicy
from labelport.stores.transport import Transport
from labelport_proxy import logs, openapi, server
from labelport_proxy.catalog_threads import CatalogThreads
from labelport_proxy.cross_origin import CrossOrigin
from labelport_proxy.directory import Directory
from labelport_proxy.exchange import exchange_of
from labelport_proxy.health import Health
from labelport_proxy.identifying import Identities
from labelport_proxy.limits import Limits
from labelport_proxy.observing import Observing
from labelport_proxy.oidc import Issuer
from labelport_proxy.opening import Opener, Stores
from labelport_proxy.presenting import Tagger
from labelport_proxy.recording import Recorder
from labelport_proxy.resolving import Resolve, Serving, kept_for
from labelport_proxy.sessions import Sessions
from labelport_proxy.settings import Settings
from labelport_proxy.streaming import Watch
from labelport_proxy.token_owners import TokenOwners
from labelport_proxy.webhooks import Webhooks

log = logging.getLogger(__name__)

_CONNECTIONS = 10_000  # to one store: what bounds streams is the limit of each user
#: Not of any length: `int` gives up on thousands of digits.
_RESOLVE = re.compile(r"/(tasks|projects)/([0-9]{1,19})/resolve/?", re.ASCII)
_LONGEST_PATH = 48  # characters: longer ones are none of those
_SESSION = "/session"
_READ_SECONDS = 5.0  # for the catalog to answer
_WRITE_SECONDS = 60.0  # while importers write: as long as SQLite waits for its lock
_ANSWER_SECONDS = 20.0  # for PostgreSQL to answer a statement; then nobody waits any more
_WARM_UP_SECONDS = 30.0  # for stores to be opened before the proxy listens
_GC_THRESHOLD = 50_000  # objects: requests make no cycles, so looking for them can wait


def from_environment() -> ASGIApp:
    """The application that the environment's settings make; what a server's worker calls."""
    settings = Settings.from_environment()
    logs.configure(settings.log_level)
    server.socket_buffer = settings.socket_buffer
    server.stall_seconds = settings.timeout + 1  # after the watch, which can tell why
    if url := str(settings.catalog_url):
        catalog = Catalog(url, answer_seconds=_ANSWER_SECONDS)
    else:
        catalog = connections.open_catalog(answer_seconds=_ANSWER_SECONDS)
        logs.configure(settings.log_level)  # which Airflow has taken, see `_open_store`
    return create(settings, catalog, partial(_open_store, settings))


def transport_of(settings: Settings) -> Transport:
    """How the proxy reaches stores: once, in its time, in small chunks."""
    return Transport(
        connections=_CONNECTIONS,
        connect_seconds=settings.head_timeout,
        head_seconds=settings.head_timeout,
        read_seconds=settings.timeout,
        retry=RetryPolicy(attempts=1),
        lean=True,
        chunk_bytes=settings.buffer_size,
        receive_bytes=settings.socket_buffer,
    )


def _open_store(settings: Settings, storage: Storage) -> Store:
    """Open a store. The first that needs Airflow loads it, which takes all logs: take them back."""
    try:
        return connections.open_store(storage, transport_of(settings))
    finally:
        logs.configure(settings.log_level)


def create(settings: Settings, catalog: Catalog, opener: Opener | None = None) -> ASGIApp:
    """The application on an opened *catalog*, which it closes when it shuts down."""
    opener = opener or partial(connections.open_store, transport=transport_of(settings))
    # Together no more than the catalog's pool has connections.
    checking = CatalogThreads(1, seconds=_READ_SECONDS)
    reading = CatalogThreads(8, seconds=_READ_SECONDS)
    writing = CatalogThreads(4, seconds=_WRITE_SECONDS)
    stores = Stores(opener)
    identities = Identities(
        catalog,
        reading,
        TokenOwners(catalog, reading, writing),
        str(settings.secret),
        _issuer(settings),
        seconds=settings.access_seconds,
        failures_per_second=settings.requests_per_second,
    )
    limits = Limits(settings.requests_per_second, settings.streams_per_user)
    watch = Watch(timeout=settings.timeout, min_rate=settings.min_rate)
    serving = Serving(
        identities=identities,
        directory=Directory(catalog, reading, settings.access_seconds),
        stores=stores,
        limits=limits,
        watch=watch,
        tagger=Tagger(str(settings.secret)),
        cross_origin=CrossOrigin(settings.allowed_origins),
        max_range_size=settings.max_range_size,
        kept=kept_for(settings.cache_timeout),
    )
    recorder = Recorder()
    health = Health(catalog, checking, str(settings.metrics_token), recorder)
    sessions = Sessions(
        catalog, writing, identities, limits, settings.session_seconds, settings.cookie_secure
    )
    webhooks = Webhooks(catalog, reading, writing, identities, limits)

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        await _warm_up(catalog, reading, stores)
        watching = asyncio.create_task(watch.run())
        try:
            yield
        finally:
            recorder.hasten()
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await stores.close()
            checking.close()
            reading.close()
            writing.close()
            catalog.close()

    routes = [
        Route("/healthz", health.alive),
        Route("/readyz", health.ready),
        Route("/metrics", health.metrics),
        Route(_SESSION, sessions.session, methods=["POST", "DELETE"]),
        Route("/webhooks/annotations", webhooks.annotations, methods=["POST"]),
        Route("/openapi.json", openapi.document),
    ]
    others = Router(routes, redirect_slashes=False, lifespan=lifespan)
    return Observing(_Paths(serving, others), recorder, settings.forwarded_allow_ips)


async def _warm_up(catalog: Catalog, reading: CatalogThreads, stores: Stores) -> None:
    """Do what would make the first requests slow."""

    def imports() -> list[Storage]:
        with catalog.read() as connection:
            known = storages.list_all(connection)
        return [storage for storage in known if storage.direction is Direction.IMPORT]

    try:
        found = await reading.call(imports)
        async with asyncio.timeout(_WARM_UP_SECONDS):
            await stores.warm_up(found)
    except SQLAlchemyError as error:
        log.error("the catalog does not answer: %s", error)
    except TimeoutError:
        log.error("the stores are not opened in time")
    # What is here now stays: no collection needs to look at it again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD)


@lru_cache(maxsize=4096)
def _place_of(path: str) -> tuple[str, int] | None:
    """``tasks`` or ``projects`` and the id, if *path* is where their objects are asked for."""
    found = _RESOLVE.fullmatch(path)
    return (found[1], int(found[2])) if found else None


class _Paths:
    """The way of a request: first to what is asked for most, past all other routes."""

    def __init__(self, serving: Serving, others: ASGIApp) -> None:
        self._cross_origin = serving.cross_origin
        self._endpoints = {kind: Resolve(serving, kind) for kind in ("tasks", "projects")}
        self._others = others

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._others(scope, receive, send)
        path = scope["path"]
        found = _place_of(path) if len(path) <= _LONGEST_PATH else None
        if found is None and path != _SESSION:
            return await self._others(scope, receive, send)
        # These two are what pages of other origins may use, if they are named.
        exchange = exchange_of(scope)
        exchange.readers = self._cross_origin.readers(exchange.headers.get(b"origin"))
        if scope["method"] == "OPTIONS":
            return await self._cross_origin.preflight(exchange)
        if found is None:
            return await self._others(scope, receive, send)
        if scope["method"] not in ("GET", "HEAD"):
            raise HTTPException(405, "Method Not Allowed", {"Allow": "GET, HEAD, OPTIONS"})
        kind, number = found
        await self._endpoints[kind](exchange, number, receive)


def _issuer(settings: Settings) -> Issuer | None:
    if not settings.oidc_issuer:
        return None
    return Issuer(
        settings.oidc_issuer,
        settings.oidc_audience,
        jwks_url=settings.oidc_jwks_url,
        email_claim=settings.oidc_email_claim,
        leeway=settings.oidc_leeway,
    )
