"""The application: everything opened, wired and closed."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

from sqlalchemy.exc import SQLAlchemyError
from starlette.convertors import IntegerConvertor, register_url_convertor
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from labelport import connections
from labelport.catalog import Catalog, storages
from labelport.model import Direction, Storage
from labelport.stores import Store
from labelport.stores._retrying import RetryPolicy
from labelport.stores.transport import Transport
from labelport_proxy import logs, openapi, server
from labelport_proxy.cross_origin import CrossOrigin
from labelport_proxy.directory import Directory
from labelport_proxy.health import Health
from labelport_proxy.identifying import Identities
from labelport_proxy.limits import Limits
from labelport_proxy.observing import Observing
from labelport_proxy.oidc import Issuer
from labelport_proxy.opening import Opener, Stores
from labelport_proxy.presenting import Tagger
from labelport_proxy.resolving import Resolve, Serving
from labelport_proxy.sessions import Sessions
from labelport_proxy.settings import Settings
from labelport_proxy.streaming import Watch
from labelport_proxy.webhooks import Webhooks

log = logging.getLogger(__name__)

_CONNECTIONS = 10_000  # to one store: what bounds streams is the limit of each user
_GC_THRESHOLD = 50_000  # objects: requests make no cycles, so looking for them can wait


def from_environment() -> ASGIApp:
    """The application that the environment's settings make; what a server's worker calls."""
    settings = Settings.from_environment()
    logs.configure(settings.log_level)
    server.socket_buffer = settings.socket_buffer
    server.stall_seconds = settings.timeout + 1  # after the watch, which can tell why
    url = str(settings.catalog_url)
    catalog = Catalog(url) if url else connections.open_catalog()
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
        receive_bytes=settings.socket_buffer // 2,  # stores are nearer than labelers
    )


def _open_store(settings: Settings, storage: Storage) -> Store:
    """Open a store. The first that needs Airflow loads it, which takes all logs: take them back."""
    try:
        return connections.open_store(storage, transport_of(settings))
    finally:
        logs.configure(settings.log_level)


def create(
    settings: Settings,
    catalog: Catalog,
    opener: Opener | None = None,
    started: Callable[[], None] | None = None,
) -> ASGIApp:
    """The application on an opened *catalog*, which it closes when it shuts down.

    :param started: called before the first request, with all libraries loaded
    """
    opener = opener or partial(connections.open_store, transport=transport_of(settings))
    stores = Stores(opener)
    identities = Identities(
        catalog, str(settings.secret), _issuer(settings), seconds=settings.access_seconds
    )
    limits = Limits(settings.requests_per_second, settings.streams_per_user)
    watch = Watch(timeout=settings.timeout, min_rate=settings.min_rate)
    serving = Serving(
        identities=identities,
        directory=Directory(catalog, settings.access_seconds),
        stores=stores,
        limits=limits,
        watch=watch,
        tagger=Tagger(str(settings.secret)),
        cross_origin=CrossOrigin(settings.allowed_origins),
        max_range_size=settings.max_range_size,
        cache_seconds=settings.cache_timeout,
    )
    health = Health(catalog, str(settings.metrics_token))
    sessions = Sessions(
        catalog, identities, limits, settings.session_seconds, settings.cookie_secure
    )
    webhooks = Webhooks(catalog, identities, limits)

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        await _warm_up(catalog, stores)
        if started is not None:
            started()
        watching = asyncio.create_task(watch.run())
        try:
            yield
        finally:
            logs.hasten()
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await stores.close()
            catalog.close()

    routes = [
        *_resolve_routes(serving),
        Route("/healthz", health.alive),
        Route("/readyz", health.ready),
        Route("/metrics", health.metrics),
        Route("/session", sessions.session, methods=["POST", "DELETE"]),
        Route("/webhooks/annotations", webhooks.annotations, methods=["POST"]),
        Route("/openapi.json", openapi.document),
    ]
    return Observing(Router(routes, redirect_slashes=False, lifespan=lifespan))


class _Id(IntegerConvertor):
    """An id. Not of any length: `int` gives up on thousands of digits."""

    regex = "[0-9]{1,19}"


register_url_convertor("id", _Id())


async def _warm_up(catalog: Catalog, stores: Stores) -> None:
    """Do what would make the first requests slow."""

    def imports() -> list[Storage]:
        with catalog.read() as connection:
            found = storages.list_all(connection)
        return [storage for storage in found if storage.direction is Direction.IMPORT]

    try:
        await stores.warm_up(await asyncio.to_thread(imports))
    except SQLAlchemyError as error:
        log.error("the catalog does not answer: %s", error)
    # What is here now stays: no collection needs to look at it again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD)


def _resolve_routes(serving: Serving) -> list[Route]:
    routes = []
    for kind in ("tasks", "projects"):
        endpoint = _WithPreflight(Resolve(serving, kind), serving.cross_origin)
        for slash in ("/", ""):
            path = f"/{kind}/{{number:id}}/resolve{slash}"
            routes.append(Route(path, endpoint, methods=["GET", "HEAD", "OPTIONS"]))
    return routes


class _WithPreflight:
    """An endpoint, and the question that browsers ask before they use it."""

    def __init__(self, endpoint: Resolve, cross_origin: CrossOrigin) -> None:
        self._endpoint = endpoint
        self._cross_origin = cross_origin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "OPTIONS":
            await self._cross_origin.preflight(scope, receive, send)
        else:
            await self._endpoint(scope, receive, send)


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
