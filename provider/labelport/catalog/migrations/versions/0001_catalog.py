"""The catalog: every table, and the view of import links."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None

# Written out, not imported: a migration says what the schema was, whatever it is today.
ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
JSON_TEXT = sa.Text().with_variant(postgresql.JSONB(), "postgresql")
TIME = sa.DateTime(timezone=True)
NOW = {
    "postgresql": "clock_timestamp()",
    "sqlite": "(strftime('%Y-%m-%d %H:%M:%f', 'now') || '000')",
}

IMPORT_LINKS = """
CREATE VIEW import_links AS
SELECT t.id AS task_id, o.storage_id, o.key,
       CASE WHEN t.row_group < 0 THEN NULL ELSE t.row_group END AS row_group,
       CASE WHEN t.row_index < 0 THEN NULL ELSE t.row_index END AS row_index,
       o.object_exists, o.etag, o.size, o.mtime, t.created_at
FROM tasks t JOIN import_objects o ON o.id = t.import_object_id
"""


def upgrade() -> None:
    _create_projects_and_users()
    _create_storages()
    _create_sync_shards()
    _create_import_objects()
    _create_tasks()
    _create_annotations()
    _create_annotation_events()
    _create_export_links()
    op.execute(IMPORT_LINKS)


def _id() -> sa.Column[int]:
    return sa.Column("id", ID, nullable=False)


def _since(name: str = "created_at") -> sa.Column[object]:
    default = sa.text(NOW[op.get_context().dialect.name])
    return sa.Column(name, TIME, nullable=False, server_default=default)


def _flag(name: str, default: bool) -> sa.Column[bool]:
    value = sa.true() if default else sa.false()
    return sa.Column(name, sa.Boolean, nullable=False, server_default=value)


def _count(name: str, default: int = 0, kind: type[sa.Integer] = sa.BigInteger) -> sa.Column[int]:
    return sa.Column(name, kind, nullable=False, server_default=str(default))


def _only_on_sqlite(*constraints: sa.ForeignKeyConstraint) -> list[sa.ForeignKeyConstraint]:
    return list(constraints) if op.get_context().dialect.name == "sqlite" else []


def _create_projects_and_users() -> None:
    op.create_table(
        "projects",
        _id(),
        sa.Column("title", sa.Text, nullable=False),
        _count("maximum_annotations", 1, sa.Integer),
        _count("next_inner_id", 1),
        _since(),
        sa.PrimaryKeyConstraint("id", name="pk_projects"),
        sa.UniqueConstraint("title", name="uq_projects_title"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "users",
        _id(),
        sa.Column("email", sa.Text, nullable=False),
        _flag("active", True),
        _since(),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
        sa.UniqueConstraint("email", name="uq_users_email"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "memberships",
        sa.Column("user_id", ID, nullable=False),
        sa.Column("project_id", ID, nullable=False),
        sa.Column("role", sa.Text, nullable=False, server_default="annotator"),
        sa.PrimaryKeyConstraint("user_id", "project_id", name="pk_memberships"),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name="fk_memberships_user_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name="fk_memberships_project_id", ondelete="CASCADE"
        ),
    )


def _create_storages() -> None:
    op.create_table(
        "storages",
        _id(),
        sa.Column("project_id", ID, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("description", sa.Text, nullable=False, server_default=""),
        sa.Column("direction", sa.Text, nullable=False),
        sa.Column("scheme", sa.Text, nullable=False),
        sa.Column("bucket", sa.Text, nullable=False),
        sa.Column("prefix", KEY, nullable=False, server_default=""),
        sa.Column("conn_id", sa.Text),
        sa.Column("regex_filter", sa.Text),
        _flag("recursive_scan", True),
        _flag("use_blob_urls", False),
        _flag("presign", True),
        _count("presign_seconds", 900, sa.Integer),
        _flag("can_delete_objects", False),
        _flag("synchronizable", True),
        sa.Column("export_format", sa.Text, nullable=False, server_default="annotation"),
        sa.Column("key_template", sa.Text),
        _count("rows_per_file", 10_000, sa.Integer),
        _count("watermark"),
        sa.Column("planned_event", sa.BigInteger),
        _since(),
        sa.Column("status", sa.Text, nullable=False, server_default="initialized"),
        sa.Column("run_id", sa.Text),
        sa.Column("lease_until", TIME),
        sa.Column("last_sync", TIME),
        sa.Column("last_sync_count", sa.BigInteger),
        sa.Column("last_sync_job", sa.Text),
        sa.Column("traceback", sa.Text),
        _count("attempts", 0, sa.Integer),
        sa.Column("time_queued", TIME),
        sa.Column("time_in_progress", TIME),
        sa.Column("time_last_ping", TIME),
        sa.Column("time_completed", TIME),
        sa.Column("time_failure", TIME),
        sa.PrimaryKeyConstraint("id", name="pk_storages"),
        sa.UniqueConstraint("name", name="uq_storages_name"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_storages_project_id"),
        sa.CheckConstraint("direction IN ('import', 'export')", name=op.f("ck_storages_direction")),
        sa.CheckConstraint(
            "status IN ('initialized', 'queued', 'in_progress', 'completed',"
            " 'completed_with_errors', 'failed')",
            name=op.f("ck_storages_status"),
        ),
        sa.CheckConstraint(
            "export_format IN ('annotation', 'task', 'jsonl', 'parquet')",
            name=op.f("ck_storages_export_format"),
        ),
        sa.CheckConstraint("rows_per_file > 0", name=op.f("ck_storages_rows_per_file")),
        sa.CheckConstraint(
            "presign_seconds BETWEEN 1 AND 604800", name=op.f("ck_storages_presign_seconds")
        ),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_storages_project_id", "storages", ["project_id"])


def _create_sync_shards() -> None:
    counters = ("scanned", "created", "updated", "existed", "changed", "missing", "skipped")
    op.create_table(
        "sync_shards",
        sa.Column("storage_id", ID, nullable=False),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("shard", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("key_after", KEY, nullable=False, server_default=""),
        sa.Column("key_until", KEY),
        sa.Column("checkpoint", KEY, nullable=False, server_default=""),
        sa.Column("state", sa.Text, nullable=False, server_default="pending"),
        sa.Column("owner", sa.Text),
        sa.Column("worker", sa.Text),
        sa.Column("heartbeat", TIME),
        sa.Column("error", sa.Text),
        *(_count(name) for name in (*counters, "errors")),
        sa.PrimaryKeyConstraint("storage_id", "run_id", "shard", name="pk_sync_shards"),
        sa.ForeignKeyConstraint(
            ["storage_id"], ["storages.id"], name="fk_sync_shards_storage_id", ondelete="CASCADE"
        ),
        sa.CheckConstraint(
            "state IN ('pending', 'running', 'done', 'failed')", name=op.f("ck_sync_shards_state")
        ),
    )


def _create_import_objects() -> None:
    op.create_table(
        "import_objects",
        _id(),
        sa.Column("storage_id", ID, nullable=False),
        sa.Column("key", KEY, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        _count("rows_done"),
        _count("rows_failed"),
        _count("byte_offset"),
        _flag("object_exists", True),
        sa.Column("etag", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("mtime", TIME),
        _since(),
        sa.PrimaryKeyConstraint("id", name="pk_import_objects"),
        sa.UniqueConstraint("storage_id", "key", name="uq_import_objects_storage_id_key"),
        sa.CheckConstraint(
            "state IN ('partial', 'done', 'error')", name=op.f("ck_import_objects_state")
        ),
        *_only_on_sqlite(
            sa.ForeignKeyConstraint(
                ["storage_id"], ["storages.id"], name="fk_import_objects_storage_id"
            )
        ),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "import_errors",
        _id(),
        sa.Column("storage_id", ID, nullable=False),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("row_group", sa.Integer),
        sa.Column("row_index", sa.BigInteger),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("remedy", sa.Text, nullable=False),
        _since(),
        sa.PrimaryKeyConstraint("id", name="pk_import_errors"),
        sa.ForeignKeyConstraint(
            ["storage_id"], ["storages.id"], name="fk_import_errors_storage_id", ondelete="CASCADE"
        ),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_import_errors_storage_id_run_id", "import_errors", ["storage_id", "run_id"])


def _create_tasks() -> None:
    op.create_table(
        "tasks",
        _id(),
        sa.Column("project_id", ID, nullable=False),
        sa.Column("inner_id", sa.BigInteger, nullable=False),
        sa.Column("data", JSON_TEXT, nullable=False),
        sa.Column("meta", JSON_TEXT),
        _count("overlap", 1, sa.Integer),
        _flag("allow_skip", True),
        _flag("is_labeled", False),
        _count("total_annotations", 0, sa.Integer),
        _count("cancelled_annotations", 0, sa.Integer),
        _count("total_predictions", 0, sa.Integer),
        sa.Column("import_object_id", ID),
        _count("row_group", -1, sa.Integer),
        _count("row_index", -1),
        sa.Column("source_task", sa.Text),
        _since(),
        _since("updated_at"),
        sa.PrimaryKeyConstraint("id", name="pk_tasks"),
        sa.UniqueConstraint("project_id", "inner_id", name="uq_tasks_project_id_inner_id"),
        sa.UniqueConstraint(
            "import_object_id",
            "row_group",
            "row_index",
            name="uq_tasks_import_object_id_row_group_row_index",
        ),
        *_only_on_sqlite(
            sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_tasks_project_id"),
            sa.ForeignKeyConstraint(
                ["import_object_id"], ["import_objects.id"], name="fk_tasks_import_object_id"
            ),
        ),
        sqlite_autoincrement=True,
    )
    present = sa.text("source_task IS NOT NULL")
    op.create_index(
        "uq_tasks_project_id_source_task",
        "tasks",
        ["project_id", "source_task"],
        unique=True,
        sqlite_where=present,
        postgresql_where=present,
    )


def _create_annotations() -> None:
    op.create_table(
        "annotations",
        _id(),
        sa.Column("task_id", ID, nullable=False),
        sa.Column("project_id", ID, nullable=False),
        sa.Column("result", JSON_TEXT, nullable=False),
        sa.Column("completed_by", sa.Text),
        _flag("was_cancelled", False),
        _flag("ground_truth", False),
        sa.Column("lead_time", sa.Float),
        _since(),
        _since("updated_at"),
        sa.PrimaryKeyConstraint("id", name="pk_annotations"),
        *_only_on_sqlite(
            sa.ForeignKeyConstraint(
                ["task_id"], ["tasks.id"], name="fk_annotations_task_id", ondelete="CASCADE"
            )
        ),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_annotations_task_id", "annotations", ["task_id"])
    op.create_index("ix_annotations_project_id_id", "annotations", ["project_id", "id"])
    op.create_table(
        "predictions",
        _id(),
        sa.Column("task_id", ID, nullable=False),
        sa.Column("project_id", ID, nullable=False),
        sa.Column("result", JSON_TEXT, nullable=False),
        sa.Column("score", sa.Float),
        sa.Column("model_version", sa.Text),
        _since(),
        sa.PrimaryKeyConstraint("id", name="pk_predictions"),
        *_only_on_sqlite(
            sa.ForeignKeyConstraint(
                ["task_id"], ["tasks.id"], name="fk_predictions_task_id", ondelete="CASCADE"
            )
        ),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_predictions_task_id", "predictions", ["task_id"])


def _create_annotation_events() -> None:
    op.create_table(
        "annotation_events",
        _id(),
        sa.Column("project_id", ID, nullable=False),
        sa.Column("task_id", ID, nullable=False),
        sa.Column("annotation_id", ID, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        _since(),
        sa.PrimaryKeyConstraint("id", name="pk_annotation_events"),
        sa.CheckConstraint(
            "kind IN ('created', 'updated', 'deleted')", name=op.f("ck_annotation_events_kind")
        ),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_annotation_events_project_id_id", "annotation_events", ["project_id", "id"])


def _create_export_links() -> None:
    op.create_table(
        "export_links",
        sa.Column("storage_id", ID, nullable=False),
        sa.Column("annotation_id", ID, nullable=False, autoincrement=False),
        sa.Column("task_id", ID, nullable=False),
        sa.Column("key", KEY, nullable=False),
        sa.Column("digest", sa.Text),
        sa.Column("etag", sa.Text),
        _flag("object_exists", False),
        _count("attempts", 0, sa.Integer),
        sa.Column("error", sa.Text),
        sa.Column("exported_at", TIME),
        sa.Column("deleted_at", TIME),
        _since(),
        _since("updated_at"),
        sa.PrimaryKeyConstraint("storage_id", "annotation_id", name="pk_export_links"),
        sa.ForeignKeyConstraint(
            ["storage_id"], ["storages.id"], name="fk_export_links_storage_id", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_export_links_storage_id_key", "export_links", ["storage_id", "key"])
    op.create_index("ix_export_links_annotation_id", "export_links", ["annotation_id"])
