"""${message}."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}

# Write types and names out, import none of Labelport's: a migration is frozen history.


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}
