"""``/webhooks/annotations``: what a labeling tool tells becomes annotations of the catalog."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from labelport import hearing
from labelport.catalog import Catalog, users
from labelport.errors import FormatError, NotFound
from labelport.model import Role
from labelport_proxy.bodies import read_body
from labelport_proxy.exchange import exchange_of
from labelport_proxy.identifying import Identities
from labelport_proxy.limits import Limits
from labelport_proxy.refusing import Refusal, unauthenticated

_MAX_BODY = 32 << 20


@dataclass(frozen=True)
class Webhooks:
    """Takes events from those who manage the task's project."""

    catalog: Catalog
    identities: Identities
    limits: Limits

    async def annotations(self, request: Request) -> Response:
        """``POST``: create, change or delete annotations, with their events in the outbox.

        Only by an ``Authorization`` header: a cookie would let other sites write.
        """
        authorization = request.headers.get("authorization")
        if authorization is None:
            raise unauthenticated("Send a token: Authorization: Token ….")
        user = await self.identities.of_authorization(authorization.encode("latin-1"))
        exchange = exchange_of(request.scope)
        exchange.user, exchange.outcome = user.id, "webhook"
        self.limits.count(user.id)
        body = await read_body(request, _MAX_BODY)
        try:
            received = await asyncio.to_thread(self._receive, user.id, body)
        except FormatError as error:
            raise Refusal(422, "unreadable", str(error)) from None
        except NotFound:
            raise Refusal(
                404, "not_found", "There is no such task in a project that you manage."
            ) from None
        return JSONResponse(received._asdict(), headers={"cache-control": "no-store"})

    def _receive(self, user_id: int, body: bytes) -> hearing.Received:
        def may_write(project_id: int) -> bool:
            with self.catalog.read() as connection:
                return users.role(connection, user_id, project_id) is Role.MANAGER

        return hearing.receive(self.catalog, body, may_write=may_write)
