"""Bringing a catalog's schema up to this version of Labelport, and telling when it is not."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from labelport.catalog.database import Catalog
from labelport.errors import ConfigurationError

#: Not Alembic's own name for it: a database shared with Airflow has a table of that name.
VERSION_TABLE = "labelport_version"

_MIGRATIONS = Path(__file__).parent / "migrations"
_LOCK = 5_107_640_932  # any number; PostgreSQL's advisory locks are known by one


class CatalogState(StrEnum):
    """What a database is to this version of Labelport."""

    UP_TO_DATE = "up to date"
    BEHIND = "behind"
    EMPTY = "empty"
    NEWER = "newer"  #: upgraded by a later version of Labelport than this one
    NOT_OURS = "not ours"  #: it holds tables, and none of them says that Labelport made it


#: Why a catalog in this state cannot be used, and what to do.
REMEDIES = {
    CatalogState.BEHIND: "the catalog was made by an older Labelport; run: labelport db upgrade",
    CatalogState.EMPTY: "the catalog has no tables yet; run: labelport db upgrade",
    CatalogState.NEWER: "the catalog was made by a newer Labelport; upgrade this installation",
    CatalogState.NOT_OURS: (
        "the catalog's database holds tables of another program; give Labelport a database, "
        "or a PostgreSQL schema (?options=-csearch_path%3Dlabelport), of its own"
    ),
}


def upgrade(catalog: Catalog) -> bool:
    """Bring *catalog* up to date in one transaction; False when there was nothing to do.

    Of several processes that upgrade at once, one does the work and the others wait for it.

    Raises:
        ConfigurationError: the database cannot be opened, is another program's, or was made by
            a newer Labelport.
    """
    check(catalog)  # says what is wrong with a database that cannot be opened
    with catalog.begin() as connection:
        _wait_for_other_upgrades(connection)
        state = _state(connection)
        if state in (CatalogState.NEWER, CatalogState.NOT_OURS):
            raise ConfigurationError(REMEDIES[state])
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return state is not CatalogState.UP_TO_DATE


def check(catalog: Catalog) -> CatalogState:
    """Compare *catalog* with this version of Labelport; nothing is changed.

    Raises:
        ConfigurationError: the database cannot be opened.
    """
    try:
        with catalog.read() as connection:
            return _state(connection)
    except sa.exc.OperationalError as error:
        raise _unreachable(catalog, error) from error


def require_current(catalog: Catalog) -> None:
    """Return when *catalog* is up to date; every flow calls it first.

    Raises:
        ConfigurationError: it is not, or cannot be opened; the message names the remedy.
    """
    state = check(catalog)
    if state is not CatalogState.UP_TO_DATE:
        raise ConfigurationError(REMEDIES[state])


def _state(connection: sa.Connection) -> CatalogState:
    script = ScriptDirectory.from_config(_config())
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    revision = context.get_current_revision()
    if revision is None:
        names = sa.inspect(connection).get_table_names()
        return CatalogState.NOT_OURS if names else CatalogState.EMPTY
    if revision == script.get_current_head():
        return CatalogState.UP_TO_DATE
    known = {step.revision for step in script.walk_revisions()}
    return CatalogState.BEHIND if revision in known else CatalogState.NEWER


def _config() -> Config:
    config = Config()
    # A path may hold a per cent sign, which the configuration would take for a reference.
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    return config


def _wait_for_other_upgrades(connection: sa.Connection) -> None:
    if connection.dialect.name == "postgresql":  # SQLite's transaction holds the lock already
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))


def _unreachable(catalog: Catalog, error: sa.exc.OperationalError) -> ConfigurationError:
    reason = str(error.orig).strip().splitlines()[0]
    return ConfigurationError(
        f"{catalog!r} cannot be opened: {reason}. Check LABELPORT_CATALOG_URL, and that the "
        "database is running and its directory exists"
    )
