"""What is refused, and how HTTP says so: every error's status is in the one table here."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from labelport import errors


class Refusal(Exception):
    """An answer that is no success. *detail* is for people and tells no more than it must."""

    def __init__(
        self, status: int, error: str, detail: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.error = error  #: for programs: a word that stays the same
        self.detail = detail
        self.headers = dict(headers or {})

    def anew(self) -> Refusal:
        """The same, not raised yet."""
        return Refusal(self.status, self.error, self.detail, self.headers)


class Meaning(NamedTuple):
    """What an error is to HTTP."""

    status: int
    error: str
    detail: str


#: By the nearest class. Details name no store, for whoever asks may only know the task.
MEANINGS: Mapping[type[Exception], Meaning] = MappingProxyType(
    {
        errors.ObjectNotFound: Meaning(404, "object_not_found", "The store has no such object."),
        errors.InvalidKey: Meaning(
            400, "invalid_key", "HTTP would turn this key into another: copy the object."
        ),
        errors.ObjectChanged: Meaning(502, "object_changed", "The object is being overwritten."),
        errors.AccessDenied: Meaning(
            502, "store_denied", "The store refused the proxy's credentials; its log says why."
        ),
        errors.BucketNotFound: Meaning(502, "bucket_not_found", "The storage's bucket is gone."),
        errors.StoreBusy: Meaning(503, "store_busy", "The store asks to be left alone for now."),
        errors.StoreTimeout: Meaning(504, "store_timeout", "The store did not answer in time."),
        errors.StoreUnavailable: Meaning(502, "store_unavailable", "The store failed."),
        errors.StoreError: Meaning(502, "store_error", "The store's answer makes no sense."),
        errors.ConfigurationError: Meaning(
            502, "storage_misconfigured", "The storage cannot be opened; the proxy's log says why."
        ),
    }
)


def refusal_of(error: errors.LabelportError) -> Refusal:
    """The refusal that *error* comes to."""
    kind = next(kind for kind in type(error).__mro__ if kind in MEANINGS)
    status, word, detail = MEANINGS[kind]
    headers = {}
    if isinstance(error, errors.StoreBusy):
        headers["Retry-After"] = str(max(1, round(error.after_seconds or 1)))
    return Refusal(status, word, detail, headers)


def unauthenticated(detail: str = "Log in, or send a token.") -> Refusal:
    return Refusal(401, "unauthenticated", detail, {"WWW-Authenticate": "Bearer"})


def forbidden(detail: str) -> Refusal:
    return Refusal(403, "forbidden", detail)


def not_found(what: str) -> Refusal:
    """Also for what exists and is not the caller's to know of."""
    return Refusal(404, "not_found", f"There is no such {what}.")


def bad_request(detail: str) -> Refusal:
    return Refusal(400, "bad_request", detail)


def too_many(detail: str, after_seconds: float) -> Refusal:
    after = {"Retry-After": str(max(1, round(after_seconds)))}
    return Refusal(429, "too_many_requests", detail, after)
