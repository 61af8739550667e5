"""The nouns of Labelport, all frozen.

What an export reads by the thousand is a `Struct` that the garbage collector does not follow: there
are no cycles in it, and following it cost a third of the reading.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

from msgspec import Struct

#: The data key of a media task's URI, until a labeling configuration names it.
UNDEFINED_NAME = "$undefined$"


class Direction(StrEnum):
    """Whether a storage brings tasks in or takes annotations out."""

    IMPORT = "import"
    EXPORT = "export"


class Status(StrEnum):
    """Where the latest sync of a storage stands.

    initialized → queued → in_progress → completed | completed_with_errors | failed → queued → …
    """

    INITIALIZED = "initialized"
    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    COMPLETED_WITH_ERRORS = "completed_with_errors"
    FAILED = "failed"

    @property
    def active(self) -> bool:
        """Whether a run owns the storage, so that no other may start."""
        return self in (Status.QUEUED, Status.IN_PROGRESS)


class ExportFormat(StrEnum):
    """What an export storage's objects hold."""

    ANNOTATION = "annotation"  #: one annotation each, with its task inside
    TASK = "task"  #: one task each, with all its annotations and predictions
    JSONL = "jsonl"  #: many annotations each, a line an annotation, and a manifest
    PARQUET = "parquet"  #: the same as rows of a table


class EventKind(StrEnum):
    """What happened to an annotation."""

    CREATED = "created"
    UPDATED = "updated"
    DELETED = "deleted"


class Role(StrEnum):
    """What a member may do in a project."""

    ANNOTATOR = "annotator"  #: see its media
    MANAGER = "manager"  #: and change its annotations


class TokenKind(StrEnum):
    """What a token is for."""

    API = "api"  #: programs, until it is revoked or expires
    SESSION = "session"  #: a browser that logged in


class ShardState(StrEnum):
    """pending → running → done | failed; a retry takes failed or running back to running."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class ObjectState(StrEnum):
    """How far an object's import came: partial → done | error; error objects are read again."""

    PARTIAL = "partial"
    DONE = "done"
    ERROR = "error"


class ObjectMeta(NamedTuple):
    """What a store says of one object."""

    key: str
    size: int  #: bytes
    etag: str  #: without quotes; equal etags mean equal bytes
    modified: datetime | None = None  #: UTC
    content_type: str = ""  #: as the store says; empty in listings
    content_encoding: str = ""  #: as the store says; empty in listings


class Page(NamedTuple):
    """One page of a listing: objects, and with a delimiter the folders beside them."""

    objects: Sequence[ObjectMeta]
    prefixes: Sequence[str] = ()


@dataclass(frozen=True)
class ByteRange:
    """``start <= byte < stop``, both counted from 0; without ``stop``, to the end."""

    start: int
    stop: int | None = None


@dataclass(frozen=True)
class KeyRange:
    """Keys with ``after < key <= until`` in code-point order; without ``until``, to the last."""

    after: str = ""
    until: str | None = None

    def __contains__(self, key: str) -> bool:
        return key > self.after and (self.until is None or key <= self.until)


ALL_KEYS = KeyRange()


@dataclass(frozen=True)
class Counters:
    """What a run has met so far: tasks in ``created`` and ``updated``, else objects.

    An export counts objects it has written in ``created`` and written anew in ``updated``, those
    whose bytes are in the store already in ``existed``, and those it has deleted in ``missing``.
    """

    scanned: int = 0  #: objects the listing showed inside the prefix
    created: int = 0  #: tasks made
    updated: int = 0  #: tasks whose data a re-import replaced
    existed: int = 0  #: objects already imported, unchanged
    changed: int = 0  #: objects whose etag or size differs from the imported ones
    missing: int = 0  #: imported objects that the bucket no longer holds
    skipped: int = 0  #: folder markers and keys the filter leaves out
    errors: int = 0  #: objects or rows that became an error row

    def __add__(self, other: Counters) -> Counters:
        return Counters(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


@dataclass(frozen=True)
class Problem:
    """One object or row that could not be imported: expected bad input, a value and no error."""

    key: str
    row: int | None  #: counted from 0; None when the object as a whole is at fault
    reason: str
    remedy: str
    row_group: int | None = None


class AnnotationRow(NamedTuple):
    """One annotation of a task to be saved; *result* is JSON text."""

    result: str
    completed_by: str | None = None
    was_cancelled: bool = False
    ground_truth: bool = False
    lead_time: float | None = None  #: seconds
    created_at: datetime | None = None
    updated_at: datetime | None = None


class PredictionRow(NamedTuple):
    """One prediction of a task to be saved; *result* is JSON text."""

    result: str
    score: float | None = None
    model_version: str | None = None


class TaskRow(NamedTuple):
    """One task to be saved; *data* is the text of a JSON object that every database accepts."""

    row: int  #: counted from 0 in its object; -1 when the object itself is the task (media)
    data: str
    annotations: Sequence[AnnotationRow] = ()
    predictions: Sequence[PredictionRow] = ()
    allow_skip: bool = True
    meta: str | None = None
    row_group: int = -1
    #: ``project/task``, when an export says which task this was: rows that agree become one task.
    source_task: str | None = None


@dataclass(frozen=True)
class Project:
    """What tasks and storages belong to."""

    id: int
    title: str  #: unique in the catalog
    maximum_annotations: int  #: how many annotations a task wants
    created_at: datetime


@dataclass(frozen=True)
class User:
    """Somebody who may be a member of projects."""

    id: int
    email: str  #: in lower case; unique in the catalog
    active: bool  #: if not, no token of theirs is good
    created_at: datetime


@dataclass(frozen=True)
class Membership:
    """Says that a user may see a project's media, and in which role."""

    user_id: int
    project_id: int
    role: Role


@dataclass(frozen=True)
class AccessToken:
    """A token of a user, without the secret, of which only a digest is kept."""

    id: int
    user_id: int
    name: str
    kind: TokenKind
    created_at: datetime
    expires_at: datetime | None  #: None: never
    last_used_at: datetime | None  #: to the minute


@dataclass(frozen=True)
class Storage:
    """A configured place, import or export, that belongs to a project."""

    id: int
    project_id: int
    name: str  #: unique in the catalog
    direction: Direction
    scheme: str
    bucket: str
    prefix: str = ""
    description: str = ""
    conn_id: str | None = None  #: Airflow connection id; None: the cloud's default credentials
    regex_filter: str | None = None  #: matched from the start of the whole key (``re.match``)
    recursive_scan: bool = True
    use_blob_urls: bool = False
    presign: bool = True
    presign_seconds: int = 900  #: how long a signed URL lives
    serve_any_key: bool = False  #: to members, not only the keys that their tasks refer to
    can_delete_objects: bool = False  #: delete the object when its annotation is deleted
    synchronizable: bool = True
    export_format: ExportFormat = ExportFormat.ANNOTATION
    key_template: str | None = None  #: of exported objects' keys, below the prefix; None: the id
    rows_per_file: int = 10_000  #: annotations in one JSONL or Parquet file

    @property
    def location(self) -> str:
        return f"{self.scheme}://{self.bucket}/{self.prefix}"

    @property
    def folder(self) -> str:
        """The prefix as a folder: ``img`` covers ``img/…`` and never ``img2k/…``."""
        return self.prefix if not self.prefix or self.prefix.endswith("/") else self.prefix + "/"

    def uri(self, key: str) -> str:
        return f"{self.scheme}://{self.bucket}/{key}"

    @property
    def pattern(self) -> re.Pattern[str] | None:
        """The compiled ``regex_filter``; an empty one filters nothing."""
        return re.compile(self.regex_filter) if self.regex_filter else None


@dataclass(frozen=True)
class SyncState:
    """The latest sync of a storage, with the reference's field names."""

    status: Status
    last_sync: datetime | None  #: end of the latest sync that completed, UTC
    last_sync_count: int | None  #: tasks created (or objects written) by the latest run
    last_sync_job: str | None  #: ``dag id/run id``, or who else ran it
    traceback: str | None
    run_id: str | None
    attempts: int = 0
    time_queued: datetime | None = None
    time_in_progress: datetime | None = None
    time_last_ping: datetime | None = None
    time_completed: datetime | None = None
    time_failure: datetime | None = None
    lease_until: datetime | None = None
    counters: Counters = Counters()

    @property
    def meta(self) -> dict[str, object]:
        """The reference's ``meta`` dictionary: times in ISO 8601 UTC, durations in seconds."""
        ended = self.time_completed or self.time_failure
        begun = self.time_in_progress
        meta: dict[str, object] = {"attempts": self.attempts}
        for name in ("queued", "in_progress", "last_ping", "completed"):
            moment: datetime | None = getattr(self, f"time_{name}")
            meta[f"time_{name}"] = moment.isoformat() if moment else None
        if self.time_failure:
            meta["time_failure"] = self.time_failure.isoformat()
        meta["duration"] = (ended - begun).total_seconds() if ended and begun else None
        meta["tasks_existed"] = self.counters.existed
        meta |= {f.name: getattr(self.counters, f.name) for f in fields(self.counters)}
        return meta


@dataclass(frozen=True)
class Shard:
    """A key range of one run, owned by one worker at a time."""

    storage_id: int
    run_id: str
    index: int
    keys: KeyRange
    checkpoint: str = ""  #: every key up to here is done with
    state: ShardState = ShardState.PENDING
    owner: str | None = None
    counters: Counters = Counters()


class Link(Struct, frozen=True, gc=False):
    """Says that this key became this task, and what the object was like at its last sync."""

    storage_id: int
    key: str
    row_group: int | None  #: of a Parquet file
    row_index: int | None  #: counted from 0; None when the whole object is the task
    object_exists: bool
    etag: str
    size: int  #: bytes
    mtime: datetime | None


class Task(Struct, frozen=True, gc=False):
    """One thing to label. *data* and *meta* are JSON text."""

    id: int
    project_id: int
    inner_id: int  #: the task's number in its project, from 1
    data: str
    meta: str | None
    overlap: int  #: how many annotations this task wants
    allow_skip: bool
    is_labeled: bool
    total_annotations: int
    cancelled_annotations: int
    total_predictions: int
    created_at: datetime
    updated_at: datetime
    link: Link | None  #: None: no storage brought it, or that storage was removed


class Annotation(Struct, frozen=True, gc=False):
    """An annotation in the catalog; *result* is JSON text."""

    id: int
    task_id: int
    result: str
    completed_by: str | None
    was_cancelled: bool
    ground_truth: bool
    lead_time: float | None  #: seconds
    created_at: datetime
    updated_at: datetime


class Prediction(Struct, frozen=True, gc=False):
    """A prediction in the catalog; *result* is JSON text."""

    id: int
    task_id: int
    result: str
    score: float | None
    model_version: str | None
    created_at: datetime


class LedgerState(Struct, frozen=True, gc=False):
    """What the ledger says of one annotation in one export storage."""

    key: str
    digest: str | None  #: SHA-256 of the bytes written last, in hexadecimal
    object_exists: bool  #: the store acknowledged those bytes
    attempts: int


class ExportUnit(Struct, frozen=True, gc=False):
    """What becomes one exported object: an annotation, or a task with all it has.

    Never without an annotation; *ledger* holds what is known of them, by annotation id.
    """

    task: Task
    annotations: Sequence[Annotation]
    predictions: Sequence[Prediction] = ()
    ledger: Mapping[int, LedgerState] = MappingProxyType({})


class ExportLink(Struct, frozen=True, gc=False):
    """A row of the ledger: where an annotation went, or why it did not."""

    storage_id: int
    annotation_id: int
    task_id: int
    key: str
    digest: str | None
    etag: str | None
    object_exists: bool
    attempts: int
    error: str | None  #: of the latest attempt; None: it succeeded
    exported_at: datetime | None
    deleted_at: datetime | None  #: when the annotation was deleted; the object may remain


class AnnotationEvent(NamedTuple):
    """A row of the outbox: what happened to an annotation, written where it happened."""

    id: int  #: ascending in order of writing
    project_id: int
    task_id: int
    annotation_id: int
    kind: EventKind
    created_at: datetime
