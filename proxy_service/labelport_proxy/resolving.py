"""``/tasks/{id}/resolve/`` and ``/projects/{id}/resolve/``: from a URI to its object."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import parse_qsl

from starlette.types import Receive

from labelport.errors import AccessDenied, InvalidRange, ObjectChanged
from labelport.model import ByteRange, ObjectMeta
from labelport.resolving import Kind, decode_fileuri
from labelport.stores import ObjectStream
from labelport_proxy import conditions, presenting, ranges
from labelport_proxy.conditions import Verdict
from labelport_proxy.cross_origin import CrossOrigin
from labelport_proxy.directory import Directory, Grant, Request
from labelport_proxy.exchange import Exchange
from labelport_proxy.fields import Fields, fields
from labelport_proxy.identifying import Identities, Link
from labelport_proxy.limits import Limits
from labelport_proxy.opening import Opened, Stores
from labelport_proxy.refusing import Refusal, bad_request, unauthenticated
from labelport_proxy.streaming import Flow, Watch, ended_early, send_rest

_SHORT_QUERY = 1 << 10  # characters: longer ones would fill the memory if they were remembered
_LONGEST_QUERY = 16 << 10  # characters: a key has 1,024 bytes, quoted and encoded in base64
_MAX_ID = 2**63 - 1
_OF_REDIRECTS = fields((b"content-length", b"0"), (b"referrer-policy", b"no-referrer"))
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
    kept: Fields  #: for how long a browser may keep what was streamed


class _Wanted(NamedTuple):
    """A request's own part."""

    uri: str
    link: Link | None


class Resolve:
    """The endpoint."""

    def __init__(self, serving: Serving, kind: Kind) -> None:
        self._serving = serving
        self._kind = kind

    async def __call__(self, exchange: Exchange, number: int, receive: Receive) -> None:
        """Answer for the task or project of this *number*."""
        serving = self._serving
        wanted = _wanted(exchange.scope["query_string"])
        user_id, is_link = await self._asking(exchange, number, wanted)
        exchange.user = user_id
        serving.limits.count(user_id)
        if not 0 < number <= _MAX_ID:
            raise Refusal(404, "not_found", f"There is no such {self._kind.removesuffix('s')}.")
        request = Request(user_id, self._kind, number, wanted.uri)
        grant = serving.directory.known(request) or await serving.directory.grant(request)
        storage = grant.storage
        opened = serving.stores.known(storage) or await serving.stores.get(storage)
        shared = serving.cross_origin.fields(is_link=is_link)
        # What is signed is a GET: a HEAD would be refused where it leads.
        redirects = storage.presign and opened.store.signs and exchange.scope["method"] == "GET"
        try:
            if redirects:
                await _redirect(opened, grant, shared, exchange)
            else:
                serving.limits.begin_stream(user_id)
                try:
                    await _Answer(serving, opened, grant, shared, exchange).give(receive)
                finally:
                    serving.limits.end_stream(user_id)
        except AccessDenied:
            serving.stores.refused(opened)
            raise

    async def _asking(self, exchange: Exchange, number: int, wanted: _Wanted) -> tuple[int, bool]:
        """The id of the user who asks, and whether a signed link is all that says so."""
        identities, headers = self._serving.identities, exchange.headers
        user = identities.known(headers)
        if user is None:
            user = await identities.of_headers(headers, exchange.scope.get("client"))
        if user is not None:
            return user.id, False
        if wanted.link is not None:
            return identities.of_link(wanted.link, self._kind, number, wanted.uri), True
        raise unauthenticated()


def _wanted(query_string: bytes) -> _Wanted:
    """What a query asks for. Raises `Refusal`."""
    # Players ask for one object again and again. Signed links are not kept.
    plain = len(query_string) <= _SHORT_QUERY and b"&" not in query_string
    return (_remembered if plain else _read)(query_string)


def _read(query_string: bytes) -> _Wanted:
    query = _query(query_string)
    try:
        return _Wanted(decode_fileuri(query["fileuri"]), Link.of_query(query))
    except ValueError as error:
        raise bad_request(f"{error}.") from None


_remembered = lru_cache(maxsize=4096)(_read)


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


async def _redirect(opened: Opened, grant: Grant, shared: Fields, exchange: Exchange) -> None:
    location, max_age = await opened.location(grant.key, grant.storage.presign_seconds)
    exchange.outcome = "redirect"
    await exchange.begin(303, (location, kept_for(max_age), _OF_REDIRECTS, shared))


class _Answer:
    """One object, or a part of it, on its way through us."""

    def __init__(
        self,
        serving: Serving,
        opened: Opened,
        grant: Grant,
        shared: Fields,
        exchange: Exchange,
    ) -> None:
        self._serving = serving
        self._store = opened.store
        self._grant = grant
        self._shared = shared
        self._exchange = exchange
        self._method = exchange.scope["method"]
        self._asks = _asks(exchange)
        is_get = self._method == "GET"
        self._asked = ranges.parse(self._asks.get("range")) if is_get else None

    async def give(self, receive: Receive) -> None:
        """Answer. An object that changes between two looks at it is looked at once more."""
        try:
            await self._once(receive)
        except ObjectChanged:
            if self._exchange.status is not None:
                raise
            await self._once(receive)

    async def _once(self, receive: Receive) -> None:
        if not self._asks and self._method == "GET":
            return await self._stream(None, None, receive)
        meta = await self._looked_at() if self._needs_a_look() else None
        if meta is not None:
            verdict = conditions.judge(self._asks, self._tag(meta), meta.modified)
            if verdict is Verdict.NOT_MODIFIED:
                validators = fields(*presenting.validators(meta, self._tag(meta)))
                return await self._bare(304, "not_modified", validators)
            if verdict is Verdict.FAILED:
                raise Refusal(412, "precondition_failed", "The object is another one now.")
            if self._method == "HEAD":
                length = fields((b"content-length", b"%d" % meta.size))
                return await self._bare(200, "head", length, _described(meta, self._tag(meta)))
        try:
            byte_range = self._byte_range(meta)
        except ranges.NotSatisfiable:
            raise self._unsatisfiable(meta) from None
        await self._stream(byte_range, meta, receive)

    def _needs_a_look(self) -> bool:
        """Whether the object must be known before it is opened. A 304 opens no body."""
        from_the_end = self._asked is not None and self._asked.first is None
        judged = any(name in self._asks for name in conditions.PRECONDITIONS)
        return from_the_end or judged or self._method == "HEAD"

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
        self, byte_range: ByteRange | None, meta: ObjectMeta | None, receive: Receive
    ) -> None:
        opening = self._store.open(self._grant.key, byte_range, etag=meta.etag if meta else None)
        try:
            async with opening as stream:
                if byte_range is None or meta is not None or self._holds(stream.meta):
                    return await self._send(stream, byte_range, receive)
        except InvalidRange:
            looked_at = await self._looked_at()
            if self._holds(looked_at):
                raise self._unsatisfiable(looked_at) from None
        # The client has part of another version: it gets the whole of this one.
        await self._stream(None, None, receive)

    async def _send(
        self, stream: ObjectStream, byte_range: ByteRange | None, receive: Receive
    ) -> None:
        meta, ranged = stream.meta, byte_range is not None
        start, stop = 0, meta.size
        part = []
        if byte_range is not None:
            start = byte_range.start
            stop = meta.size if byte_range.stop is None else min(byte_range.stop, meta.size)
            part.append((b"content-range", b"bytes %d-%d/%d" % (start, stop - 1, meta.size)))
        length = stop - start
        part.append((b"content-length", b"%d" % length))
        chunks = aiter(stream)
        first = await anext(chunks, b"") if length else b""
        if length and not first:
            raise ended_early()
        self._exchange.outcome = "partial" if ranged else "full"
        status = 206 if ranged else 200
        described = _described(meta, self._tag(meta))
        parts = (described, self._serving.kept, self._shared, fields(*part))
        await self._exchange.begin(status, parts, first, length - len(first))
        if len(first) == length:
            return
        with self._serving.watch.over(Flow(len(first), length, timed=ranged)) as flow:
            cut = await send_rest(self._exchange, receive, chunks, flow)
        if cut is not None:
            self._exchange.outcome = "truncated"
            self._exchange.error = self._exchange.error or cut

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

    async def _bare(self, status: int, outcome: str, *parts: Fields) -> None:
        self._exchange.outcome = outcome
        await self._exchange.begin(status, (*parts, self._serving.kept, self._shared))


@lru_cache(maxsize=1024)
def kept_for(seconds: int) -> Fields:
    """For how long a browser may keep an answer, and nobody else."""
    return fields((b"cache-control", b"private, max-age=%d" % seconds))


@lru_cache(maxsize=4096)
def _described(meta: ObjectMeta, etag: str | None) -> Fields:
    """What is said of an object, which may be asked for part by part."""
    return fields(*presenting.object_headers(meta, etag))


def _asks(exchange: Exchange) -> dict[str, str]:
    """Conditions and range; those sent in several lines are one list, as all of HTTP's are."""
    asks: dict[str, str] = {}
    if _ASKING.isdisjoint(exchange.headers):
        return asks
    for raw, value in exchange.scope["headers"]:
        if raw in _ASKING:
            name, text = raw.decode(), value.decode("latin-1")
            asks[name] = f"{asks[name]}, {text}" if name in asks else text
    return asks
