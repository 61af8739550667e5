"""Users, and the projects they are members of."""

from __future__ import annotations

import re

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from labelport.catalog.naming import is_id
from labelport.catalog.schema import memberships as rows
from labelport.catalog.schema import users
from labelport.errors import ConfigurationError, NotFound
from labelport.model import Membership, Role, User

#: The columns of a `User`.
COLUMNS = [users.c[name] for name in ("id", "email", "active", "created_at")]

_MAX_EMAIL_LENGTH = 254  # characters, of RFC 5321
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")


def add(connection: sa.Connection, email: str) -> User:
    """Create a user, who is active and a member of nothing.

    Raises:
        ConfigurationError: *email* is no address, or somebody has it, in whatever case.
    """
    values = {"email": _checked(email)}
    try:
        with connection.begin_nested():
            row = connection.execute(users.insert().values(values).returning(*COLUMNS)).one()
    except sa.exc.IntegrityError as error:
        raise ConfigurationError(f"there is a user {email!r} already") from error
    return User(*row)


def get(connection: sa.Connection, email_or_id: str | int) -> User:
    """The user of this address, in any case, or id. Raises `NotFound`."""
    if is_id(email_or_id):
        user = _one(connection, users.c.id == int(email_or_id))
    else:
        user = find(connection, str(email_or_id))
    if user is None:
        raise _not_found(email_or_id)
    return user


def find(connection: sa.Connection, email: str) -> User | None:
    """The user of this address, in any case."""
    return _one(connection, users.c.email == email.lower())


def list_all(connection: sa.Connection) -> list[User]:
    """Every user, the oldest first."""
    return [User(*row) for row in connection.execute(sa.select(*COLUMNS).order_by(users.c.id))]


def set_active(connection: sa.Connection, user_id: int, active: bool) -> User:
    """Let a user in, or keep them out without forgetting them. Raises `NotFound`."""
    change = users.update().where(users.c.id == user_id).values(active=active)
    row = connection.execute(change.returning(*COLUMNS)).one_or_none()
    if row is None:
        raise _not_found(user_id)
    return User(*row)


def remove(connection: sa.Connection, user_id: int) -> None:
    """Forget a user, their memberships and their tokens; annotations stay. Raises `NotFound`."""
    if not connection.execute(users.delete().where(users.c.id == user_id)).rowcount:
        raise _not_found(user_id)


def join(connection: sa.Connection, user_id: int, project_id: int, role: Role) -> Membership:
    """Make a user a member of a project; who is one already gets the *role*.

    Raises:
        NotFound: there is no such user or no such project.
    """
    make = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    statement = make(rows).values(user_id=user_id, project_id=project_id, role=role)
    try:
        with connection.begin_nested():
            connection.execute(
                statement.on_conflict_do_update(
                    index_elements=["user_id", "project_id"], set_={"role": role}
                )
            )
    except sa.exc.IntegrityError as error:
        raise NotFound(f"there is no user {user_id}, or no project {project_id}") from error
    return Membership(user_id, project_id, role)


def leave(connection: sa.Connection, user_id: int, project_id: int) -> None:
    """End a membership. Raises `NotFound` if there is none."""
    if not connection.execute(rows.delete().where(_is(user_id, project_id))).rowcount:
        raise NotFound(f"user {user_id} is no member of project {project_id}")


def memberships(connection: sa.Connection, user_id: int) -> list[Membership]:
    """The memberships of a user, in order of the projects' ids."""
    query = sa.select(rows.c.project_id, rows.c.role).where(rows.c.user_id == user_id)
    found = connection.execute(query.order_by(rows.c.project_id))
    return [Membership(user_id, project_id, Role(role)) for project_id, role in found]


def role(connection: sa.Connection, user_id: int, project_id: int) -> Role | None:
    """What an active user is in a project; None: no member, or not active."""
    query = sa.select(rows.c.role).join(users, users.c.id == rows.c.user_id)
    found = connection.scalar(query.where(_is(user_id, project_id), users.c.active))
    return Role(found) if found else None


def _one(connection: sa.Connection, which: sa.ColumnElement[bool]) -> User | None:
    row = connection.execute(sa.select(*COLUMNS).where(which)).one_or_none()
    return User(*row) if row else None


def _is(user_id: int, project_id: int) -> sa.ColumnElement[bool]:
    return (rows.c.user_id == user_id) & (rows.c.project_id == project_id)


def _checked(email: str) -> str:
    if len(email) > _MAX_EMAIL_LENGTH or not email.isprintable() or not _EMAIL.fullmatch(email):
        raise ConfigurationError(f"{email!r} is no e-mail address; write one such as a@example.com")
    return email.lower()


def _not_found(email_or_id: str | int) -> NotFound:
    return NotFound(f"there is no user {email_or_id!r}; see: labelport users list")
