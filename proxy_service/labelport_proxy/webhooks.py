"""``/webhooks/annotations``: what a labeling tool tells becomes annotations of the catalog."""

from __future__ import annotations

from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from labelport import hearing
from labelport.catalog import Catalog, users
from labelport.errors import FormatError, NotFound
from labelport.model import Role
from labelport_proxy.bodies import Bodies
from labelport_proxy.catalog_threads import CatalogThreads
from labelport_proxy.exchange import exchange_of
from labelport_proxy.identifying import Identities
from labelport_proxy.limits import Limits
from labelport_proxy.refusing import Refusal, unauthenticated

_MAX_BODY = 32 << 20


@dataclass(frozen=True)
class Webhooks:
    """Takes events from those who manage the task's project."""

    catalog: Catalog
    reading: CatalogThreads
    writing: CatalogThreads
    identities: Identities
    limits: Limits
    bodies: Bodies = field(default_factory=Bodies)

    async def annotations(self, request: Request) -> Response:
        """``POST``: create, change or delete annotations, with their events in the outbox.

        Only by an ``Authorization`` header: a cookie would let other sites write.
        """
        authorization = request.headers.get("authorization")
        if authorization is None:
            raise unauthenticated("Send a token: Authorization: Token ….")
        user = await self.identities.of_authorization(
            authorization.encode("latin-1"), request.scope.get("client")
        )
        exchange = exchange_of(request.scope)
        exchange.user, exchange.outcome = user.id, "webhook"
        self.limits.count(user.id)
        self.limits.begin_stream(user.id)
        try:
            received = await self._received(request, user.id)
        except FormatError as error:
            raise Refusal(422, "unreadable", str(error)) from None
        except NotFound:
            raise _no_task() from None
        finally:
            self.limits.end_stream(user.id)
        return JSONResponse(received._asdict(), headers={"cache-control": "no-store"})

    async def _received(self, request: Request, user_id: int) -> hearing.Received:
        if not await self.reading.call(self._is_manager, user_id):
            raise _no_task()  # before anything is read
        async with self.bodies.read(request, _MAX_BODY) as body:
            return await self.writing.call(self._receive, user_id, body)

    def _is_manager(self, user_id: int) -> bool:
        """Of any project."""
        with self.catalog.read() as connection:
            found = users.memberships(connection, user_id)
        return any(membership.role is Role.MANAGER for membership in found)

    def _receive(self, user_id: int, body: bytes) -> hearing.Received:
        def may_write(project_id: int) -> bool:
            with self.catalog.read() as connection:
                return users.role(connection, user_id, project_id) is Role.MANAGER

        return hearing.receive(self.catalog, body, may_write=may_write)


def _no_task() -> Refusal:
    """Also for a task that exists and is not the caller's to know of."""
    return Refusal(404, "not_found", "There is no such task in a project that you manage.")
