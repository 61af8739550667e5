"""Access: tokens, roles, keys that no task names. And the ids that tools give annotations."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime(timezone=True)
NOW = {
    "postgresql": "clock_timestamp()",
    "sqlite": "(strftime('%Y-%m-%d %H:%M:%f', 'now') || '000')",
}


def upgrade() -> None:
    _create_access_tokens()
    _check_roles()
    # Added in place: a copy of the table would take along, on SQLite, all that refers to it.
    op.add_column(
        "storages",
        sa.Column("serve_any_key", sa.Boolean, nullable=False, server_default=sa.false()),
    )
    op.add_column("annotations", sa.Column("source_id", sa.Text))
    present = sa.text("source_id IS NOT NULL")
    op.create_index(
        "uq_annotations_source_id_project_id",
        "annotations",
        ["source_id", "project_id"],
        unique=True,
        sqlite_where=present,
        postgresql_where=present,
    )


def _create_access_tokens() -> None:
    now = sa.text(NOW[op.get_context().dialect.name])
    op.create_table(
        "access_tokens",
        sa.Column("id", ID, nullable=False),
        sa.Column("user_id", ID, nullable=False),
        sa.Column("parent_id", ID),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("created_at", TIME, nullable=False, server_default=now),
        sa.Column("expires_at", TIME),
        sa.Column("last_used_at", TIME),
        sa.PrimaryKeyConstraint("id", name="pk_access_tokens"),
        sa.UniqueConstraint("digest", name="uq_access_tokens_digest"),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name="fk_access_tokens_user_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["parent_id"],
            ["access_tokens.id"],
            name="fk_access_tokens_parent_id",
            ondelete="CASCADE",
        ),
        sa.CheckConstraint("kind IN ('api', 'session')", name=op.f("ck_access_tokens_kind")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_access_tokens_user_id", "access_tokens", ["user_id"])
    op.create_index("ix_access_tokens_parent_id", "access_tokens", ["parent_id"])


def _check_roles() -> None:
    """Nothing kept the roles in order so far; an unknown one becomes the one that may least."""
    known = "role IN ('annotator', 'manager')"
    op.execute(f"UPDATE memberships SET role = 'annotator' WHERE NOT ({known})")  # noqa: S608
    with op.batch_alter_table("memberships") as table:
        table.create_check_constraint(op.f("ck_memberships_role"), known)
