"""Tokens that let users in. A secret is shown once; the catalog keeps its digest."""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from labelport.catalog import users
from labelport.catalog.clock import in_seconds, now
from labelport.catalog.naming import check_name
from labelport.catalog.schema import access_tokens as rows
from labelport.catalog.schema import users as user_rows
from labelport.errors import ConfigurationError, NotFound
from labelport.model import AccessToken, TokenKind, User

_COLUMNS = [
    rows.c[name]
    for name in ("id", "user_id", "name", "kind", "created_at", "expires_at", "last_used_at")
]
_PREFIX = "lp_"  # by which scanners of code and logs know a secret of ours
_RANDOM_BYTES = 32
_SHAPE = re.compile(rf"{_PREFIX}[A-Za-z0-9_-]{{{-(-_RANDOM_BYTES * 4 // 3)}}}")  # base64, unpadded
_MAX_SECONDS = 3650 * 86_400  # a date too far away would become NULL, which is: never
_TOUCH_SECONDS = 60


def create(
    connection: sa.Connection,
    user_id: int,
    *,
    name: str,
    kind: TokenKind = TokenKind.API,
    seconds: float | None,
    parent: AccessToken | None = None,
) -> tuple[AccessToken, str]:
    """Create a token that expires *seconds* from now, or never; the token, and its secret.

    :param parent: a token that this one ends with, revoked or expired

    Raises:
        NotFound: there is no such user.
        ConfigurationError: the name is unusable, or *seconds* are none or more than ten years.
    """
    check_name("token name", name)
    if seconds is not None and not 0 < seconds <= _MAX_SECONDS:
        raise ConfigurationError("a token lives for more than nothing and at most ten years")
    ends = [] if seconds is None else [seconds]
    if parent is not None and parent.expires_at is not None:
        ends.append((parent.expires_at - datetime.now(UTC)).total_seconds())
    secret = _PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
    values = {
        "user_id": users.get(connection, user_id).id,
        "name": name,
        "kind": kind,
        "digest": _digest(secret),
        "expires_at": in_seconds(min(ends)) if ends else None,
        "parent_id": parent and parent.id,
    }
    row = connection.execute(rows.insert().values(values).returning(*_COLUMNS)).one()
    return _token(row), secret


def user_of(
    connection: sa.Connection, secret: str, kind: TokenKind | None = None
) -> tuple[User, AccessToken] | None:
    """Who shows this *secret*, and by which token, of this *kind* if given.

    None: it is unknown, revoked or expired by the database's clock, or the user is not active.
    """
    query = (
        sa.select(*users.COLUMNS, *_COLUMNS)
        .join_from(rows, user_rows, user_rows.c.id == rows.c.user_id)
        .where(rows.c.digest == _digest(secret), ~_expired(), user_rows.c.active)
    )
    if kind is not None:
        query = query.where(rows.c.kind == kind)
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    width = len(users.COLUMNS)
    return User(*row[:width]), _token(row[width:])


def list_of(connection: sa.Connection, user_id: int) -> list[AccessToken]:
    """The tokens of a user, expired ones too, the oldest first."""
    query = sa.select(*_COLUMNS).where(rows.c.user_id == user_id).order_by(rows.c.id)
    return [_token(row) for row in connection.execute(query)]


def revoke(connection: sa.Connection, token_id: int) -> None:
    """Forget a token: its secret lets nobody in any more. Raises `NotFound`."""
    if not connection.execute(rows.delete().where(rows.c.id == token_id)).rowcount:
        raise NotFound(f"there is no token {token_id}; see: labelport tokens list")


def revoke_secret(connection: sa.Connection, secret: str, kind: TokenKind | None = None) -> bool:
    """Forget the token of this *secret*, of this *kind* if given; whether there was one."""
    which = rows.c.digest == _digest(secret)
    if kind is not None:
        which &= rows.c.kind == kind
    return connection.execute(rows.delete().where(which)).rowcount > 0


def is_secret(text: str) -> bool:
    """Whether the secret of a token looks like *text*. No other need be looked up."""
    return _SHAPE.fullmatch(text) is not None


def untouched(token: AccessToken) -> bool:
    """Whether `touch` has anything to note, by this machine's clock."""
    used = token.last_used_at
    return used is None or datetime.now(UTC) - used > timedelta(seconds=_TOUCH_SECONDS)


def touch(connection: sa.Connection, token_id: int) -> None:
    """Note that a token is used, at most once a minute."""
    used = rows.c.last_used_at
    connection.execute(
        rows.update()
        .where(
            rows.c.id == token_id,
            used.is_(None) | (used < in_seconds(-_TOUCH_SECONDS)),
        )
        .values(last_used_at=now())
    )


def prune(connection: sa.Connection) -> int:
    """Forget the sessions that have expired; how many there were."""
    done = connection.execute(rows.delete().where(rows.c.kind == TokenKind.SESSION, _expired()))
    return done.rowcount


def _expired() -> sa.ColumnElement[bool]:
    return sa.and_(rows.c.expires_at.is_not(None), rows.c.expires_at <= now())


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()


def _token(row: sa.Row[tuple[object, ...]] | tuple[object, ...]) -> AccessToken:
    token = AccessToken(*row)
    return replace(token, kind=TokenKind(token.kind))
