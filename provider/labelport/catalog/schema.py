"""The tables, once for SQLite and PostgreSQL. Migrations follow it; a test compares the two.

Times are UTC. Keys sort by code point on both databases (`KEY`). Credentials are never stored:
a storage holds the id of an Airflow connection. Ids are never used twice (``sqlite_autoincrement``;
PostgreSQL's sequences do that by nature), for an exported object may be named after one.
"""

from dataclasses import fields
from enum import StrEnum

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from labelport.catalog.clock import UtcDateTime, now
from labelport.model import (
    Counters,
    Direction,
    EventKind,
    ExportFormat,
    ObjectState,
    Role,
    ShardState,
    Status,
    TokenKind,
)

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

#: A key of an object: compared byte by byte, as S3 lists. SQLite's default collation does that.
KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
JSON_TEXT = sa.Text().with_variant(postgresql.JSONB(), "postgresql")
ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _one_of(column: str, values: type[StrEnum]) -> str:
    return f"{column} IN ({', '.join(repr(str(value)) for value in values)})"


def _reference(table: sa.Table, column: str, target: str, **options: str) -> None:
    """A foreign key of a hot table, for SQLite only.

    Checking it row by row costs PostgreSQL half its import speed: there each batch locks the
    parent rows once, and deletes go through the catalog.
    """
    table.append_constraint(
        sa.ForeignKeyConstraint([column], [target], **options).ddl_if(dialect="sqlite")  # type: ignore[arg-type]
    )


def _counters() -> list[sa.Column[int]]:
    names = [field.name for field in fields(Counters)]
    return [sa.Column(n, sa.BigInteger, nullable=False, server_default="0") for n in names]


projects = sa.Table(
    "projects",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column("title", sa.Text, nullable=False, unique=True),
    sa.Column("maximum_annotations", sa.Integer, nullable=False, server_default="1"),
    sa.Column("next_inner_id", sa.BigInteger, nullable=False, server_default="1"),
    sa.Column("created_at", UtcDateTime, nullable=False, server_default=now()),
    sqlite_autoincrement=True,
)

users = sa.Table(
    "users",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column("email", sa.Text, nullable=False, unique=True),
    sa.Column("active", sa.Boolean, nullable=False, server_default=sa.true()),
    sa.Column("created_at", UtcDateTime, nullable=False, server_default=now()),
    sqlite_autoincrement=True,
)

memberships = sa.Table(
    "memberships",
    metadata,
    sa.Column("user_id", ID, sa.ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("project_id", ID, sa.ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("role", sa.Text, nullable=False, server_default=Role.ANNOTATOR),
    sa.CheckConstraint(_one_of("role", Role), name="role"),
)

access_tokens = sa.Table(
    "access_tokens",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column(
        "user_id", ID, sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True
    ),
    # The token that a session was begun with: it ends with it.
    sa.Column("parent_id", ID, sa.ForeignKey("access_tokens.id", ondelete="CASCADE"), index=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    # SHA-256 in hexadecimal. Without salt: nobody guesses 32 random bytes.
    sa.Column("digest", sa.Text, nullable=False, unique=True),
    sa.Column("created_at", UtcDateTime, nullable=False, server_default=now()),
    sa.Column("expires_at", UtcDateTime),  # NULL: never
    sa.Column("last_used_at", UtcDateTime),
    sa.CheckConstraint(_one_of("kind", TokenKind), name="kind"),
    sqlite_autoincrement=True,
)

storages = sa.Table(
    "storages",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column("project_id", ID, sa.ForeignKey("projects.id"), nullable=False, index=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("description", sa.Text, nullable=False, server_default=""),
    sa.Column("direction", sa.Text, nullable=False),
    sa.Column("scheme", sa.Text, nullable=False),
    sa.Column("bucket", sa.Text, nullable=False),
    sa.Column("prefix", KEY, nullable=False, server_default=""),
    sa.Column("conn_id", sa.Text),
    sa.Column("regex_filter", sa.Text),
    sa.Column("recursive_scan", sa.Boolean, nullable=False, server_default=sa.true()),
    sa.Column("use_blob_urls", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("presign", sa.Boolean, nullable=False, server_default=sa.true()),
    sa.Column("presign_seconds", sa.Integer, nullable=False, server_default="900"),
    sa.Column("serve_any_key", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("can_delete_objects", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("synchronizable", sa.Boolean, nullable=False, server_default=sa.true()),
    # Of exports only.
    sa.Column("export_format", sa.Text, nullable=False, server_default=ExportFormat.ANNOTATION),
    sa.Column("key_template", sa.Text),
    sa.Column("rows_per_file", sa.Integer, nullable=False, server_default="10000"),
    sa.Column("watermark", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("planned_event", sa.BigInteger),  # the newest when the latest export was planned
    sa.Column("created_at", UtcDateTime, nullable=False, server_default=now()),
    # The latest sync. Every change of status is one conditional UPDATE (`catalog.runs`):
    # initialized → queued → in_progress → completed | completed_with_errors | failed → queued …
    sa.Column("status", sa.Text, nullable=False, server_default=Status.INITIALIZED),
    sa.Column("run_id", sa.Text),  # the run that owns, or last owned, the storage: the fence
    sa.Column("lease_until", UtcDateTime),  # past it, by the database's clock, the run is dead
    sa.Column("last_sync", UtcDateTime),
    sa.Column("last_sync_count", sa.BigInteger),
    sa.Column("last_sync_job", sa.Text),
    sa.Column("traceback", sa.Text),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("time_queued", UtcDateTime),
    sa.Column("time_in_progress", UtcDateTime),
    sa.Column("time_last_ping", UtcDateTime),
    sa.Column("time_completed", UtcDateTime),
    sa.Column("time_failure", UtcDateTime),
    sa.CheckConstraint(_one_of("direction", Direction), name="direction"),
    sa.CheckConstraint(_one_of("status", Status), name="status"),
    sa.CheckConstraint(_one_of("export_format", ExportFormat), name="export_format"),
    sa.CheckConstraint("rows_per_file > 0", name="rows_per_file"),
    sa.CheckConstraint("presign_seconds BETWEEN 1 AND 604800", name="presign_seconds"),
    sqlite_autoincrement=True,
)

sync_shards = sa.Table(
    "sync_shards",
    metadata,
    sa.Column("storage_id", ID, sa.ForeignKey("storages.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("run_id", sa.Text, primary_key=True),
    sa.Column("shard", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("key_after", KEY, nullable=False, server_default=""),
    sa.Column("key_until", KEY),
    sa.Column("checkpoint", KEY, nullable=False, server_default=""),
    sa.Column("state", sa.Text, nullable=False, server_default=ShardState.PENDING),
    sa.Column("owner", sa.Text),  # the one attempt that may write
    sa.Column("worker", sa.Text),  # host:pid of the owner, for the traceback of a run that died
    sa.Column("heartbeat", UtcDateTime),
    sa.Column("error", sa.Text),
    *_counters(),
    sa.CheckConstraint(_one_of("state", ShardState), name="state"),
)

import_objects = sa.Table(
    "import_objects",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column("storage_id", ID, nullable=False),
    sa.Column("key", KEY, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("rows_done", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("rows_failed", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("byte_offset", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("object_exists", sa.Boolean, nullable=False, server_default=sa.true()),
    sa.Column("etag", sa.Text, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("mtime", UtcDateTime),
    sa.Column("created_at", UtcDateTime, nullable=False, server_default=now()),
    sa.UniqueConstraint("storage_id", "key"),
    sa.CheckConstraint(_one_of("state", ObjectState), name="state"),
    sqlite_autoincrement=True,
)
_reference(import_objects, "storage_id", "storages.id")

import_errors = sa.Table(
    "import_errors",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column("storage_id", ID, sa.ForeignKey("storages.id", ondelete="CASCADE"), nullable=False),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("row_group", sa.Integer),
    sa.Column("row_index", sa.BigInteger),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("remedy", sa.Text, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False, server_default=now()),
    sa.Index("ix_import_errors_storage_id_run_id", "storage_id", "run_id"),
    sqlite_autoincrement=True,
)

tasks = sa.Table(
    "tasks",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column("project_id", ID, nullable=False),
    sa.Column("inner_id", sa.BigInteger, nullable=False),
    sa.Column("data", JSON_TEXT, nullable=False),
    sa.Column("meta", JSON_TEXT),
    sa.Column("overlap", sa.Integer, nullable=False, server_default="1"),
    sa.Column("allow_skip", sa.Boolean, nullable=False, server_default=sa.true()),
    sa.Column("is_labeled", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("total_annotations", sa.Integer, nullable=False, server_default="0"),
    sa.Column("cancelled_annotations", sa.Integer, nullable=False, server_default="0"),
    sa.Column("total_predictions", sa.Integer, nullable=False, server_default="0"),
    sa.Column("import_object_id", ID),  # NULL: the task came from no storage
    sa.Column("row_group", sa.Integer, nullable=False, server_default="-1"),
    sa.Column("row_index", sa.BigInteger, nullable=False, server_default="-1"),
    sa.Column("source_task", sa.Text),  # "project/task" that an export which was imported named
    sa.Column("created_at", UtcDateTime, nullable=False, server_default=now()),
    sa.Column("updated_at", UtcDateTime, nullable=False, server_default=now()),
    sa.UniqueConstraint("project_id", "inner_id"),
    sa.UniqueConstraint("import_object_id", "row_group", "row_index"),
    sa.Index(
        "uq_tasks_project_id_source_task",
        "project_id",
        "source_task",
        unique=True,
        sqlite_where=sa.text("source_task IS NOT NULL"),
        postgresql_where=sa.text("source_task IS NOT NULL"),
    ),
    sqlite_autoincrement=True,
)
_reference(tasks, "project_id", "projects.id")
_reference(tasks, "import_object_id", "import_objects.id")

annotations = sa.Table(
    "annotations",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column("task_id", ID, nullable=False, index=True),
    sa.Column("project_id", ID, nullable=False),
    sa.Column("result", JSON_TEXT, nullable=False),
    sa.Column("completed_by", sa.Text),  # e-mail address or the id an import brought
    sa.Column("was_cancelled", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("ground_truth", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("lead_time", sa.Float),
    sa.Column("source_id", sa.Text),  # the id that the labeling tool which sent it gave it
    sa.Column("created_at", UtcDateTime, nullable=False, server_default=now()),
    sa.Column("updated_at", UtcDateTime, nullable=False, server_default=now()),
    sa.Index("ix_annotations_project_id_id", "project_id", "id"),
    # In this order it also finds an annotation whose project is not known.
    sa.Index(
        "uq_annotations_source_id_project_id",
        "source_id",
        "project_id",
        unique=True,
        sqlite_where=sa.text("source_id IS NOT NULL"),
        postgresql_where=sa.text("source_id IS NOT NULL"),
    ),
    sqlite_autoincrement=True,
)
_reference(annotations, "task_id", "tasks.id", ondelete="CASCADE")

# Annotations of labeling tools that are gone, by what their tools call them.
deleted_annotations = sa.Table(
    "deleted_annotations",
    metadata,
    sa.Column("project_id", ID, sa.ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("source_id", sa.Text, primary_key=True),
    sa.Column("by_tool", sa.Boolean, nullable=False),  # the tool deleted it, and not we
    sa.Column("deleted_at", UtcDateTime, nullable=False),
)

predictions = sa.Table(
    "predictions",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column("task_id", ID, nullable=False, index=True),
    sa.Column("project_id", ID, nullable=False),
    sa.Column("result", JSON_TEXT, nullable=False),
    sa.Column("score", sa.Float),
    sa.Column("model_version", sa.Text),
    sa.Column("created_at", UtcDateTime, nullable=False, server_default=now()),
    sqlite_autoincrement=True,
)
_reference(predictions, "task_id", "tasks.id", ondelete="CASCADE")

annotation_events = sa.Table(
    "annotation_events",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column("project_id", ID, nullable=False),
    sa.Column("task_id", ID, nullable=False),
    sa.Column("annotation_id", ID, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False, server_default=now()),
    sa.Index("ix_annotation_events_project_id_id", "project_id", "id"),
    sa.CheckConstraint(_one_of("kind", EventKind), name="kind"),
    sqlite_autoincrement=True,
)

# The ledger of exports. An object is said to exist only after the store acknowledged it; a row
# that failed holds the error, and is tried again by the next sync.
export_links = sa.Table(
    "export_links",
    metadata,
    sa.Column("storage_id", ID, sa.ForeignKey("storages.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("annotation_id", ID, primary_key=True, autoincrement=False),
    sa.Column("task_id", ID, nullable=False),
    sa.Column("key", KEY, nullable=False),
    sa.Column("digest", sa.Text),  # SHA-256 of the bytes that were written last
    sa.Column("etag", sa.Text),
    sa.Column("object_exists", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("error", sa.Text),  # of the latest attempt; NULL: it succeeded
    sa.Column("exported_at", UtcDateTime),
    sa.Column("deleted_at", UtcDateTime),  # when the annotation was deleted: a tombstone
    sa.Column("created_at", UtcDateTime, nullable=False, server_default=now()),
    sa.Column("updated_at", UtcDateTime, nullable=False, server_default=now()),
    sa.Index("ix_export_links_storage_id_key", "storage_id", "key"),
    sa.Index("ix_export_links_annotation_id", "annotation_id"),
)

#: The link of every imported task, in the shape users know: (task, storage, key, row).
IMPORT_LINKS = """
SELECT t.id AS task_id, o.storage_id, o.key,
       CASE WHEN t.row_group < 0 THEN NULL ELSE t.row_group END AS row_group,
       CASE WHEN t.row_index < 0 THEN NULL ELSE t.row_index END AS row_index,
       o.object_exists, o.etag, o.size, o.mtime, t.created_at
FROM tasks t JOIN import_objects o ON o.id = t.import_object_id
"""

import_links = sa.table(
    "import_links",
    sa.column("task_id", ID),
    sa.column("storage_id", ID),
    sa.column("key", KEY),
    sa.column("row_group", sa.Integer),
    sa.column("row_index", sa.BigInteger),
    sa.column("object_exists", sa.Boolean),
    sa.column("etag", sa.Text),
    sa.column("size", sa.BigInteger),
    sa.column("mtime", UtcDateTime),
    sa.column("created_at", UtcDateTime),
)
