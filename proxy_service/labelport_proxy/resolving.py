"""``/tasks/{id}/resolve/`` and ``/projects/{id}/resolve/``: from a URI to its object."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import parse_qsl

from starlette.types import Receive, Scope, Send

from labelport.errors import AccessDenied, InvalidRange, ObjectChanged
from labelport.model import ByteRange, ObjectMeta
from labelport.resolving import Kind, decode_fileuri
from labelport.stores import ObjectStream
from labelport_proxy import conditions, presenting, ranges
from labelport_proxy.conditions import Verdict
from labelport_proxy.cross_origin import CrossOrigin
from labelport_proxy.directory import Directory, Grant, Request
from labelport_proxy.identifying import Identities, Link
from labelport_proxy.limits import Limits
from labelport_proxy.observing import Exchange, exchange_of
from labelport_proxy.opening import Opened, Stores
from labelport_proxy.refusing import Refusal, bad_request, unauthenticated
from labelport_proxy.streaming import Watch, send_body

_LONGEST_QUERY = 16 << 10  # characters: a key has 1,024 bytes, quoted and encoded in base64
#: What `proxy_url` makes, which is read without looking for anything else in it.
_USUAL_QUERY = re.compile(rb"fileuri=([A-Za-z0-9_-]{1,8192})")
_MAX_ID = 2**63 - 1
#: The headers that decide what of an object is answered.
_ASKING = frozenset(name.encode() for name in (*conditions.PRECONDITIONS, "if-range", "range"))


@dataclass(frozen=True)
class Serving:
    """What every request shares."""

    identities: Identities
    directory: Directory
    stores: Stores
    limits: Limits
    watch: Watch
    tagger: presenting.Tagger
    cross_origin: CrossOrigin
    max_range_size: int  #: bytes
    cache_seconds: int  #: for which a browser may keep what was streamed


class _Wanted(NamedTuple):
    """A request's own part."""

    uri: str
    link: Link | None


class Resolve:
    """The endpoint, an ASGI application."""

    def __init__(self, serving: Serving, kind: Kind) -> None:
        self._serving = serving
        self._kind = kind

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        serving, exchange = self._serving, exchange_of(scope)
        headers = dict(scope["headers"])
        number: int = scope["path_params"]["number"]
        wanted = _wanted(scope["query_string"])
        user_id, is_link = await self._asking(headers, number, wanted)
        exchange.user = user_id
        serving.limits.count(user_id)
        if not 0 < number <= _MAX_ID:
            raise Refusal(404, "not_found", f"There is no such {self._kind.removesuffix('s')}.")
        grant = await serving.directory.grant(Request(user_id, self._kind, number, wanted.uri))
        opened = await serving.stores.get(grant.storage)
        shared = serving.cross_origin.headers(is_link=is_link)
        # What is signed is a GET: a HEAD would be refused where it leads.
        redirects = grant.storage.presign and opened.store.signs and scope["method"] == "GET"
        try:
            if redirects:
                await _redirect(opened, grant, shared, exchange, send)
            else:
                with serving.limits.stream(user_id):
                    await _Answer(serving, opened, grant, shared, scope).give(receive, send)
        except AccessDenied:
            serving.stores.refused(opened)
            raise

    async def _asking(
        self, headers: Mapping[bytes, bytes], number: int, wanted: _Wanted
    ) -> tuple[int, bool]:
        """The id of the user who asks, and whether a signed link is all that says so."""
        identities = self._serving.identities
        user = await identities.of_headers(headers)
        if user is not None:
            return user.id, False
        if wanted.link is not None:
            return identities.of_link(wanted.link, self._kind, number, wanted.uri), True
        raise unauthenticated()


def _wanted(query_string: bytes) -> _Wanted:
    usual = _USUAL_QUERY.fullmatch(query_string)
    query = {"fileuri": usual[1].decode()} if usual else _query(query_string)
    try:
        return _Wanted(decode_fileuri(query["fileuri"]), Link.of_query(query))
    except ValueError as error:
        raise bad_request(f"{error}.") from None


def _query(query_string: bytes) -> dict[str, str]:
    if len(query_string) > _LONGEST_QUERY:
        raise bad_request("The query is too long.")
    try:
        pairs = parse_qsl(query_string.decode("ascii"), keep_blank_values=True, errors="strict")
    except ValueError:
        raise bad_request("The query is not percent-encoded UTF-8.") from None
    query = dict(pairs)
    if len(query) < len(pairs) or "fileuri" not in query:
        raise bad_request("Send one fileuri: the base64url of an object's URI, or the URI quoted.")
    return query


async def _redirect(
    opened: Opened,
    grant: Grant,
    shared: presenting.Headers,
    exchange: Exchange,
    send: Send,
) -> None:
    url, max_age = await opened.signed(grant.key, grant.storage.presign_seconds)
    exchange.outcome = "redirect"
    headers = [
        (b"location", url.encode("ascii")),
        (b"content-length", b"0"),
        (b"cache-control", b"private, max-age=%d" % max_age),
        (b"referrer-policy", b"no-referrer"),
        *shared,
    ]
    await send({"type": "http.response.start", "status": 303, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


class _Answer:
    """One object, or a part of it, on its way through us."""

    def __init__(
        self,
        serving: Serving,
        opened: Opened,
        grant: Grant,
        shared: presenting.Headers,
        scope: Scope,
    ) -> None:
        self._serving = serving
        self._store = opened.store
        self._grant = grant
        self._shared = shared
        self._scope = scope
        self._exchange = exchange_of(scope)
        self._asks = _asks(scope["headers"])
        is_get = scope["method"] == "GET"
        self._asked = ranges.parse(self._asks.get("range")) if is_get else None

    async def give(self, receive: Receive, send: Send) -> None:
        """Answer. An object that changes between two looks at it is looked at once more."""
        try:
            await self._once(receive, send)
        except ObjectChanged:
            if self._exchange.status is not None:
                raise
            await self._once(receive, send)

    async def _once(self, receive: Receive, send: Send) -> None:
        meta = await self._looked_at() if self._needs_a_look() else None
        if meta is not None:
            verdict = conditions.judge(self._asks, self._tag(meta), meta.modified)
            if verdict is Verdict.NOT_MODIFIED:
                return await self._bare(send, 304, "not_modified", self._validators(meta))
            if verdict is Verdict.FAILED:
                raise Refusal(412, "precondition_failed", "The object is another one now.")
            if self._scope["method"] == "HEAD":
                length = (b"content-length", str(meta.size).encode())
                return await self._bare(send, 200, "head", [length, *self._described(meta)])
        try:
            byte_range = self._byte_range(meta)
        except ranges.NotSatisfiable:
            raise self._unsatisfiable(meta) from None
        await self._stream(byte_range, meta, receive, send)

    def _needs_a_look(self) -> bool:
        """Whether the object must be known before it is opened. A 304 opens no body."""
        from_the_end = self._asked is not None and self._asked.first is None
        judged = any(name in self._asks for name in conditions.PRECONDITIONS)
        return from_the_end or judged or self._scope["method"] == "HEAD"

    async def _looked_at(self) -> ObjectMeta:
        return await self._store.head(self._grant.key)

    def _byte_range(self, meta: ObjectMeta | None) -> ByteRange | None:
        """What to ask the store for; None: the whole object."""
        if self._asked is None or (meta is not None and not self._holds(meta)):
            return None
        size = meta.size if meta else None
        return ranges.bounded(self._asked, size, self._serving.max_range_size)

    def _holds(self, meta: ObjectMeta) -> bool:
        """Whether the client's part of the object is of this version."""
        return conditions.range_holds(self._asks.get("if-range"), self._tag(meta), meta.modified)

    async def _stream(
        self, byte_range: ByteRange | None, meta: ObjectMeta | None, receive: Receive, send: Send
    ) -> None:
        opening = self._store.open(self._grant.key, byte_range, etag=meta.etag if meta else None)
        try:
            async with opening as stream:
                if byte_range is None or meta is not None or self._holds(stream.meta):
                    return await self._send(stream, byte_range, receive, send)
        except InvalidRange:
            looked_at = await self._looked_at()
            if self._holds(looked_at):
                raise self._unsatisfiable(looked_at) from None
        # The client has part of another version: it gets the whole of this one.
        await self._stream(None, None, receive, send)

    async def _send(
        self, stream: ObjectStream, byte_range: ByteRange | None, receive: Receive, send: Send
    ) -> None:
        meta, ranged = stream.meta, byte_range is not None
        start, stop = 0, meta.size
        headers = self._described(meta)
        if byte_range is not None:
            start = byte_range.start
            stop = meta.size if byte_range.stop is None else min(byte_range.stop, meta.size)
            content_range = f"bytes {start}-{stop - 1}/{meta.size}".encode()
            headers.append((b"content-range", content_range))
        headers.append((b"content-length", str(stop - start).encode()))
        self._exchange.outcome = "partial" if ranged else "full"
        status = 206 if ranged else 200
        await send({"type": "http.response.start", "status": status, "headers": headers})
        with self._serving.watch.flow(timed=ranged) as flow:
            cut = await send_body(self._scope, receive, send, stream, stop - start, flow)
        if cut is not None:
            self._exchange.outcome = "truncated"
            self._exchange.error = self._exchange.error or cut

    def _described(self, meta: ObjectMeta) -> presenting.Headers:
        return [
            *presenting.object_headers(meta, self._tag(meta)),
            *self._kept(),
        ]

    def _validators(self, meta: ObjectMeta) -> presenting.Headers:
        return [*presenting.validators(meta, self._tag(meta)), *self._kept()]

    def _kept(self) -> presenting.Headers:
        """How long a browser may keep the answer, and whom it may show it to."""
        age = b"private, max-age=%d" % self._serving.cache_seconds
        return [(b"cache-control", age), *self._shared]

    def _tag(self, meta: ObjectMeta) -> str | None:
        return self._serving.tagger.tag(meta, self._grant.access)

    def _unsatisfiable(self, meta: ObjectMeta | None) -> Refusal:
        size = meta.size if meta else "*"
        return Refusal(
            416,
            "range_not_satisfiable",
            "The object ends before that.",
            {"Content-Range": f"bytes */{size}", "Accept-Ranges": "bytes"},
        )

    async def _bare(
        self, send: Send, status: int, outcome: str, headers: presenting.Headers
    ) -> None:
        self._exchange.outcome = outcome
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b""})


def _asks(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Conditions and range; those sent in several lines are one list, as all of HTTP's are."""
    asks: dict[str, str] = {}
    for raw, value in headers:
        if raw in _ASKING:
            name, text = raw.decode(), value.decode("latin-1")
            asks[name] = f"{asks[name]}, {text}" if name in asks else text
    return asks
