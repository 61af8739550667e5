"""Runs the migrations on the connection `catalog.upgrading` hands over.

``alembic`` on the command line hands over none: then the catalog's URL is the usual one.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context

from labelport.catalog.database import Catalog
from labelport.catalog.schema import metadata
from labelport.catalog.upgrading import VERSION_TABLE


def _migrate(connection: sa.Connection) -> None:
    context.configure(connection=connection, target_metadata=metadata, version_table=VERSION_TABLE)
    context.run_migrations()


handed_over = context.config.attributes.get("connection")
if handed_over is not None:
    _migrate(handed_over)
else:
    with Catalog() as catalog, catalog.begin() as connection:
        _migrate(connection)
