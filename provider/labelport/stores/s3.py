"""The S3 dialect: Amazon's and everyone else's who speaks it."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from hashlib import md5
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import quote

from labelport.errors import (
    AccessDenied,
    BucketNotFound,
    ConfigurationError,
    InvalidKey,
    InvalidRange,
    LabelportError,
    ObjectChanged,
    ObjectNotFound,
    StoreBusy,
    StoreError,
    StoreUnavailable,
)
from labelport.model import ObjectMeta
from labelport.stores._dialect import (
    Listing,
    ListingQuery,
    Refusal,
    Request,
    meta_from_headers,
)
from labelport.stores._keys import quoted_key
from labelport.stores._s3_endpoint import Addressing, Place, place_of
from labelport.stores._s3_xml import parse_listing, parse_refusal
from labelport.stores._sigv4 import presigned
from labelport.stores.aws_credentials import CredentialSource

#: S3's error codes that say more than the HTTP status, or something else.
ERRORS: Mapping[str, type[LabelportError]] = MappingProxyType(
    {
        "NoSuchBucket": BucketNotFound,
        "InvalidBucketName": BucketNotFound,
        "NoSuchKey": ObjectNotFound,
        "ExpiredToken": AccessDenied,
        "InvalidToken": AccessDenied,
        "TokenRefreshRequired": AccessDenied,
        "InvalidAccessKeyId": AccessDenied,
        "SignatureDoesNotMatch": AccessDenied,
        "RequestTimeTooSkewed": AccessDenied,
        "InvalidObjectState": StoreError,  # archived: only its owner can restore it
        "InvalidRange": InvalidRange,
        "KeyTooLongError": InvalidKey,
        "PreconditionFailed": ObjectChanged,
        "ConditionalRequestConflict": StoreUnavailable,
        "OperationAborted": StoreUnavailable,
        "RequestTimeout": StoreUnavailable,
        "SlowDown": StoreBusy,
        "InternalError": StoreUnavailable,
        "BadDigest": StoreUnavailable,
        "IncompleteBody": StoreUnavailable,
        "PermanentRedirect": ConfigurationError,
        "TemporaryRedirect": ConfigurationError,
        "AuthorizationHeaderMalformed": ConfigurationError,
        "AuthorizationQueryParametersError": ConfigurationError,
        "IllegalLocationConstraintException": ConfigurationError,
    }
)

#: What the ``Server`` header of servers begins with that do not list in code-point order.
UNORDERED_SERVERS = ("SeaweedFS",)

#: How long the URL of one of our own requests is good: the clock skew that S3 forgives.
REQUEST_SECONDS = 900
MAX_SIGN_SECONDS = 7 * 24 * 3600


#: Our own URLs of objects that are used again: how long, and how many of a bucket.
_URL_USED = timedelta(seconds=60)
_MOST_URLS = 4096
_READING = ("GET", "HEAD")


class _Signed(NamedTuple):
    """The URL of one of our requests, which is good for `REQUEST_SECONDS`."""

    url: str
    credentials: object  #: what it was signed with
    at: datetime  #: clocks may be set back


@dataclass(frozen=True)
class S3Dialect:
    """One bucket in S3. ``HttpStore(S3Dialect(…))`` is the store."""

    bucket: str
    credentials: CredentialSource
    region: str = "us-east-1"
    endpoint: str | None = None  #: URL; None: Amazon's in the region
    public_endpoint: str | None = None  #: URL that browsers reach, where it is another one
    addressing: Addressing = Addressing.AUTO
    #: False where listings are known to come in another order, such as in directory buckets.
    ordered: bool = True
    #: Sent and signed with every request, such as ``x-amz-request-payer``.
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    #: Sent and signed with every write, such as encryption and storage class.
    put_arguments: Mapping[str, str] = field(default_factory=dict, repr=False)
    clock: Callable[[], datetime] = field(default=lambda: datetime.now(UTC), repr=False)
    scheme: str = field(default="s3", init=False)
    _urls: dict[tuple[str, str], _Signed] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def errors(self) -> Mapping[str, type[LabelportError]]:
        """S3's error codes."""
        return ERRORS

    async def listing(self, query: ListingQuery) -> Request:
        """ListObjectsV2."""
        arguments = [
            ("list-type", "2"),
            ("encoding-type", "url"),
            ("max-keys", str(query.page_size)),
            ("prefix", query.prefix),
        ]
        if not query.recursive:
            arguments.append(("delimiter", "/"))
        if query.token is not None:
            arguments.append(("continuation-token", query.token))
        elif query.keys.after:
            arguments.append(("start-after", query.keys.after))
        return await self._signed("GET", self._place.path or "/", arguments, {})

    def read_listing(self, body: bytes, headers: Mapping[str, str]) -> Listing:
        """Read a ListBucketResult."""
        objects, prefixes, token = parse_listing(body)
        known_unordered = headers.get("Server", "").startswith(UNORDERED_SERVERS)
        return Listing(objects, prefixes, token, self.ordered and not known_unordered)

    async def request(
        self, method: str, key: str, headers: Mapping[str, str], body: bytes = b""
    ) -> Request:
        """A request for one object."""
        if method not in _READING:
            return await self._signed(method, self._path(key), (), headers, body)
        # A range need not be signed, so that the next one of the same object may use the same URL.
        sent = {**self.headers, **headers}
        credentials = await self.credentials()
        now = self.clock()
        kept = self._urls.get((method, key))
        fresh = kept is not None and kept.at <= now < kept.at + _URL_USED
        if kept is None or not fresh or kept.credentials is not credentials:
            request = await self._signed(method, self._path(key), (), {})
            kept = _Signed(request.url, request.credentials, now)
            if len(self._urls) >= _MOST_URLS:
                self._urls.clear()
            self._urls[method, key] = kept
        return Request(method, kept.url, sent, credentials=kept.credentials)

    def put_headers(self, body: bytes, content_type: str, *, if_absent: bool) -> Mapping[str, str]:
        """With an MD5, so that what arrives is what was sent, as object lock demands."""
        digest = base64.b64encode(md5(body, usedforsecurity=False).digest()).decode()
        headers = {"Content-Type": content_type, "Content-MD5": digest, **self.put_arguments}
        return headers | {"If-None-Match": "*"} if if_absent else headers

    def if_match(self, etag: str) -> Mapping[str, str]:
        """HTTP's own header."""
        return {"If-Match": f'"{etag}"'} if etag else {}

    def meta(self, key: str, headers: Mapping[str, str]) -> ObjectMeta:
        """S3 answers with the standard headers."""
        return meta_from_headers(key, headers)

    def read_refusal(self, body: bytes, headers: Mapping[str, str]) -> Refusal:
        """Read an Error document; a bucket of another region has its region named."""
        refusal, region = parse_refusal(body)
        region = region or headers.get("x-amz-bucket-region", "")
        if region and region != self.region:
            remedy = f"the bucket is in {region}, not in {self.region}: set region_name"
            return Refusal(refusal.code or "PermanentRedirect", remedy)
        return refusal

    async def refresh(self, credentials: object) -> bool:
        """Whether the source has other credentials than the refused ones."""
        current = await self.credentials()
        if current == credentials:
            current = await self.credentials(refresh=True)
        return current != credentials

    async def sign(self, key: str, *, seconds: int, content_type: str | None) -> str:
        """A presigned GET; the credentials' own end may come before *seconds* are over."""
        if not 0 < seconds <= MAX_SIGN_SECONDS:
            raise ConfigurationError(f"S3 signs URLs for 1 s to {MAX_SIGN_SECONDS} s")
        # Browsers send no x-amz headers: S3 takes them from the query as well.
        query = list(self.headers.items())
        if content_type:
            query.append(("response-content-type", content_type))
        path = self._path(key, public=True)
        request = await self._signed("GET", path, query, None, seconds=seconds, public=True)
        return request.url

    async def _signed(
        self,
        method: str,
        path: str,
        query: Sequence[tuple[str, str]],
        headers: Mapping[str, str] | None,
        body: bytes = b"",
        *,
        seconds: int = REQUEST_SECONDS,
        public: bool = False,
    ) -> Request:
        """A request with all its headers signed, or unsigned without credentials."""
        origin = (self._public_place if public else self._place).origin
        sent = {} if headers is None else {**self.headers, **headers}
        credentials = await self.credentials()
        if credentials is None:
            url = origin + path
            if query and not public:
                url += "?" + "&".join(f"{quote(n, safe='')}={quote(v, safe='')}" for n, v in query)
            return Request(method, url, sent, body)
        url = presigned(
            *(method, origin, path, query, sent),
            credentials=credentials,
            region=self.region,
            seconds=seconds,
            now=self.clock(),
        )
        return Request(method, url, sent, body, credentials)

    def _path(self, key: str, *, public: bool = False) -> str:
        place = self._public_place if public else self._place
        return f"{place.path}/{quoted_key(key, f's3://{self.bucket}/{key}')}"

    @cached_property
    def _place(self) -> Place:
        return place_of(self.bucket, self.region, self.endpoint, self.addressing)

    @cached_property
    def _public_place(self) -> Place:
        endpoint = self.public_endpoint or self.endpoint
        return place_of(self.bucket, self.region, endpoint, self.addressing)
