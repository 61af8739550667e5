"""What differs between clouds that speak HTTP, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import NamedTuple, Protocol

from labelport.errors import LabelportError
from labelport.model import ALL_KEYS, KeyRange, ObjectMeta


@dataclass(frozen=True)
class Request:
    """One signed HTTP request, good for one attempt. Its representation shows no secret."""

    method: str
    url: str = field(repr=False)  #: percent-encoded and never encoded again
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)
    credentials: object = field(default=None, repr=False)  #: what it was signed with


@dataclass(frozen=True)
class ListingQuery:
    """One page that is wanted."""

    prefix: str = ""
    keys: KeyRange = ALL_KEYS
    recursive: bool = True
    page_size: int = 1000
    token: str | None = None  #: from the page before; None for the first page


class Listing(NamedTuple):
    """One page as the cloud gave it."""

    objects: list[ObjectMeta]
    prefixes: list[str]
    token: str | None  #: asks for the next page; None after the last
    ordered: bool  #: whether this server lists in code-point order


class Refusal(NamedTuple):
    """Why a request was refused, in the cloud's words."""

    code: str = ""
    message: str = ""


class Dialect(Protocol):
    """How one cloud is spoken to. Stateless but for its credentials; keys come unquoted."""

    @property
    def scheme(self) -> str: ...

    @property
    def bucket(self) -> str: ...

    @property
    def ordered(self) -> bool:
        """Whether listings are expected in code-point order, before any page tells."""
        ...

    @property
    def errors(self) -> Mapping[str, type[LabelportError]]:
        """The cloud's error codes; `StoreUnavailable` means: worth another attempt."""
        ...

    async def listing(self, query: ListingQuery) -> Request:
        """The request for one page of a listing."""
        ...

    def read_listing(self, body: bytes, headers: Mapping[str, str]) -> Listing:
        """Read the answer to `listing`. Raises `ValueError` when it is something else."""
        ...

    async def request(
        self, method: str, key: str, headers: Mapping[str, str], body: bytes = b""
    ) -> Request:
        """A request for one object: GET, HEAD, PUT or DELETE. Raises `InvalidKey`."""
        ...

    def put_headers(self, body: bytes, content_type: str, *, if_absent: bool) -> Mapping[str, str]:
        """The headers that writing an object takes."""
        ...

    def if_match(self, etag: str) -> Mapping[str, str]:
        """The headers that make a read fail unless the object has this etag."""
        ...

    def meta(self, key: str, headers: Mapping[str, str]) -> ObjectMeta:
        """What the headers of an answer say of the object. Raises `ValueError` without a size."""
        ...

    def read_refusal(self, body: bytes, headers: Mapping[str, str]) -> Refusal:
        """Why the cloud refused; an empty refusal when the answer does not tell."""
        ...

    async def refresh(self, credentials: object) -> bool:
        """Whether there are newer credentials than the refused ones, fetching them if need be."""
        ...

    async def sign(self, key: str, *, seconds: int, content_type: str | None) -> str:
        """A URL for browsers."""
        ...


def meta_from_headers(key: str, headers: Mapping[str, str]) -> ObjectMeta:
    """Read the standard headers of an answer that carries an object or a range of one.

    Raises:
        ValueError: no header tells the size of the whole object.
    """
    content_range = headers.get("Content-Range")
    size = content_range.rpartition("/")[2] if content_range else headers.get("Content-Length", "")
    return ObjectMeta(
        key,
        int(size),
        headers.get("ETag", "").strip('"'),
        _moment(headers.get("Last-Modified")),
        headers.get("Content-Type", ""),
        headers.get("Content-Encoding", ""),
    )


#: The usual form, read six times faster than by `email.utils`, which knows them all.
_HTTP_DATE = re.compile(
    r"[A-Z][a-z]{2}, (\d\d) ([A-Z][a-z]{2}) (\d{4}) (\d\d):(\d\d):(\d\d) GMT", re.ASCII
)
_MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec"


@lru_cache(maxsize=1024)
def _moment(value: str | None) -> datetime | None:
    """An HTTP date in UTC; None when there is none that can be read."""
    if value is None:
        return None
    try:
        if date := _HTTP_DATE.fullmatch(value):
            day, month, *others = date.groups()
            year, hour, minute, second = map(int, others)
            number = _MONTHS.index(month) // 4 + 1
            return datetime(year, number, int(day), hour, minute, second, tzinfo=UTC)
        return parsedate_to_datetime(value).replace(tzinfo=UTC)
    except ValueError:
        return None
