"""Projects: what tasks and storages belong to."""

from __future__ import annotations

import sqlalchemy as sa

from labelport.catalog.naming import check_name, is_id
from labelport.catalog.schema import projects
from labelport.errors import ConfigurationError, NotFound
from labelport.model import Project

_COLUMNS = [projects.c[name] for name in ("id", "title", "maximum_annotations", "created_at")]


def add(connection: sa.Connection, title: str, *, maximum_annotations: int = 1) -> Project:
    """Create a project.

    Raises:
        ConfigurationError: the title is taken or unusable, or nobody could annotate.
    """
    check_name("project title", title)
    if maximum_annotations < 1:
        raise ConfigurationError("maximum_annotations must be 1 or more")
    values = {"title": title, "maximum_annotations": maximum_annotations}
    try:
        with connection.begin_nested():
            row = connection.execute(projects.insert().values(values).returning(*_COLUMNS)).one()
    except sa.exc.IntegrityError as error:
        raise ConfigurationError(
            f"there is a project {title!r} already; choose another title"
        ) from error
    return Project(*row)


def get(connection: sa.Connection, title_or_id: str | int) -> Project:
    """The project of this title or id. Raises `NotFound`."""
    column = projects.c.id if is_id(title_or_id) else projects.c.title
    value = int(title_or_id) if is_id(title_or_id) else title_or_id
    row = connection.execute(sa.select(*_COLUMNS).where(column == value)).one_or_none()
    if row is None:
        raise NotFound(f"there is no project {title_or_id!r}; see: labelport projects list")
    return Project(*row)


def list_all(connection: sa.Connection) -> list[Project]:
    """Every project, the oldest first."""
    rows = connection.execute(sa.select(*_COLUMNS).order_by(projects.c.id))
    return [Project(*row) for row in rows]
