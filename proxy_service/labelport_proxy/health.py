"""Whether the process lives, whether it can serve, and what it has counted."""

from __future__ import annotations

import asyncio
import hmac
import logging
from dataclasses import dataclass

import sqlalchemy.exc
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from labelport.catalog import Catalog, upgrading
from labelport.errors import ConfigurationError
from labelport_proxy import metrics
from labelport_proxy.catalog_threads import CatalogThreads
from labelport_proxy.exchange import exchange_of
from labelport_proxy.recording import Recorder
from labelport_proxy.refusing import Refusal, unauthenticated

log = logging.getLogger(__name__)

_NO_STORE = {"cache-control": "no-store"}


@dataclass(frozen=True)
class Health:
    """What operators and their machines ask."""

    catalog: Catalog
    threads: CatalogThreads  #: of its own, or whoever is busy would seem not to be ready
    metrics_token: str  #: empty: nobody is asked for one
    recorder: Recorder

    async def alive(self, request: Request) -> Response:
        """``/healthz``: the event loop turns."""
        exchange_of(request.scope).outcome = "health"
        return JSONResponse({"status": "ok"}, headers=_NO_STORE)

    async def ready(self, request: Request) -> Response:
        """``/readyz``: the catalog answers, and is as this version needs it."""
        exchange_of(request.scope).outcome = "health"
        try:
            await self.threads.call(upgrading.require_current, self.catalog)
        except (ConfigurationError, sqlalchemy.exc.SQLAlchemyError) as error:
            log.error("not ready: %s", error)
            raise Refusal(503, "not_ready", "The catalog cannot be used.") from None
        return JSONResponse({"status": "ready"}, headers=_NO_STORE)

    async def metrics(self, request: Request) -> Response:
        """``/metrics``, for Prometheus."""
        exchange_of(request.scope).outcome = "metrics"
        if self.metrics_token:
            _, _, given = request.headers.get("authorization", "").partition(" ")
            if not hmac.compare_digest(given.strip().encode(), self.metrics_token.encode()):
                raise unauthenticated("Send the metrics token: Authorization: Bearer ….")
        self.recorder.flush()
        body = await asyncio.to_thread(metrics.exposed)
        return Response(body, headers=_NO_STORE | {"content-type": metrics.CONTENT_TYPE})
