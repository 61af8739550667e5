"""What can go wrong, grouped by who can put it right.

LabelportError
├── ConfigurationError      the operator: a storage, connection or setting is wrong
│   └── NotFound            no such storage, project or task in the catalog
├── StoreError              the cloud, or the rights we have in it
│   ├── ObjectNotFound
│   ├── BucketNotFound
│   ├── AccessDenied
│   ├── ObjectChanged       the object is no longer the one we began to read
│   ├── InvalidRange
│   ├── InvalidKey          a key that HTTP or a file system would bend into another
│   └── StoreUnavailable    worth trying again later
│       ├── StoreBusy       it asked to be left alone
│       └── StoreTimeout    it did not answer, or did not go on, in time
├── FormatError             the author of an object
├── SyncRefused             nobody: another sync of this storage is running
├── SyncLost                nobody: this run no longer owns its storage and must stop
└── TooManyErrors           the operator: more bad rows than the sync may have
"""

from __future__ import annotations


class LabelportError(Exception):
    """The root of every error that Labelport raises on purpose. Carries no secret."""


class ConfigurationError(LabelportError):
    """A storage, a connection or a setting is wrong; the message names the remedy."""


class NotFound(ConfigurationError):
    """The catalog holds nothing by this name or number."""


class StoreError(LabelportError):
    """A store refused or failed; ``uri`` names the place, never a signed URL."""

    def __init__(self, message: str, *, uri: str = "") -> None:
        super().__init__(f"{uri}: {message}" if uri else message)
        self.uri = uri


class ObjectNotFound(StoreError):
    """No object has this key."""


class BucketNotFound(StoreError):
    """There is no such bucket, container or directory."""


class AccessDenied(StoreError):
    """The credentials are missing, expired or do not allow this."""


class ObjectChanged(StoreError):
    """A precondition failed: the object is not, or no longer, the one that was asked for."""


class InvalidRange(StoreError):
    """The range starts past the end of the object."""


class InvalidKey(StoreError):
    """The key would name another object once an HTTP client or a file system has read it."""


class StoreUnavailable(StoreError):
    """The store did not answer, or answered that it is busy, after every retry.

    ``after_seconds`` says how long it asked to be left alone; None: it did not say.
    """

    def __init__(self, message: str, *, uri: str = "", after_seconds: float | None = None) -> None:
        super().__init__(message, uri=uri)
        self.after_seconds = after_seconds


class StoreBusy(StoreUnavailable):
    """The store has too much to do, or too much of ours."""


class StoreTimeout(StoreUnavailable):
    """No connection, no answer or no further byte came in time."""


class FormatError(LabelportError):
    """An object's bytes are not what they should be.

    ``reason`` says what is wrong, ``remedy`` what its author can do.
    """

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(f"{reason}. {remedy}")
        self.reason = reason
        self.remedy = remedy


class SyncRefused(LabelportError):
    """Another sync of this storage is queued or in progress."""


class SyncLost(LabelportError):
    """This run was declared dead or replaced: it owns its storage no more and writes nothing."""


class TooManyErrors(LabelportError):
    """The sync met more errors than ``max_errors``."""
