"""Which annotations of labeling tools were deleted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "deleted_annotations",
        sa.Column("project_id", ID, nullable=False),
        sa.Column("source_id", sa.Text, nullable=False),
        sa.Column("by_tool", sa.Boolean, nullable=False),
        sa.Column("deleted_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("project_id", "source_id", name="pk_deleted_annotations"),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["projects.id"],
            name="fk_deleted_annotations_project_id",
            ondelete="CASCADE",
        ),
    )
