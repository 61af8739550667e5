"""Users, their memberships and tokens, and what the proxy asks of the catalog."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from catalogs import any_storage, import_tasks
from labelport.catalog import access, projects, schema, storages, tasks, tokens, users
from labelport.errors import ConfigurationError, NotFound
from labelport.model import Membership, Role, TokenKind


@pytest.fixture
def connection(catalog):
    with catalog.begin() as connection:
        yield connection


@pytest.fixture
def ann(connection):
    return users.add(connection, "Ann@Example.com")


@pytest.fixture
def cats(connection):
    return projects.add(connection, "Cats")


def test_a_user_is_found_by_address_in_any_case_and_by_id(connection, ann):
    assert (ann.email, ann.active) == ("ann@example.com", True)
    for name in ("ann@example.com", "ANN@example.COM", ann.id, str(ann.id)):
        assert users.get(connection, name) == ann
    assert users.find(connection, "aNN@example.com") == ann
    assert users.list_all(connection) == [ann]


def test_an_address_is_one_users(connection, ann):
    with pytest.raises(ConfigurationError, match="already"):
        users.add(connection, "ANN@EXAMPLE.COM")

    assert users.list_all(connection) == [ann]


@pytest.mark.parametrize(
    "email",
    ["", "ann", "@example.com", "ann@", "a nn@example.com", "a@b@c", "a\0@b", "a" * 250 + "@b.cd"],
)
def test_what_is_no_address_is_refused(connection, email):
    with pytest.raises(ConfigurationError, match="no e-mail address"):
        users.add(connection, email)


def test_unknown_users_are_not_found(connection):
    assert users.find(connection, "ann@example.com") is None
    for act in (
        lambda: users.get(connection, "ann@example.com"),
        lambda: users.get(connection, 7),
        lambda: users.set_active(connection, 7, False),
        lambda: users.remove(connection, 7),
    ):
        with pytest.raises(NotFound, match="labelport users list"):
            act()


def test_a_member_has_the_role_given_last(connection, ann, cats):
    assert users.role(connection, ann.id, cats.id) is None
    users.join(connection, ann.id, cats.id, Role.ANNOTATOR)
    assert users.role(connection, ann.id, cats.id) is Role.ANNOTATOR
    users.join(connection, ann.id, cats.id, Role.MANAGER)
    assert users.role(connection, ann.id, cats.id) is Role.MANAGER
    assert users.memberships(connection, ann.id) == [Membership(ann.id, cats.id, Role.MANAGER)]

    users.leave(connection, ann.id, cats.id)
    assert users.role(connection, ann.id, cats.id) is None
    with pytest.raises(NotFound, match="no member"):
        users.leave(connection, ann.id, cats.id)


def test_only_users_join_and_only_projects_are_joined(connection, ann, cats):
    for user_id, project_id in ((99, cats.id), (ann.id, 99)):
        with pytest.raises(NotFound, match="99"):
            users.join(connection, user_id, project_id, Role.ANNOTATOR)


def test_a_role_is_one_of_two(connection, ann, cats):
    row = {"user_id": ann.id, "project_id": cats.id, "role": "owner"}

    with pytest.raises(sa.exc.IntegrityError), connection.begin_nested():
        connection.execute(schema.memberships.insert().values(row))


def test_who_is_not_active_has_no_role_and_no_good_token(connection, ann, cats):
    users.join(connection, ann.id, cats.id, Role.MANAGER)
    _, secret = tokens.create(connection, ann.id, name="laptop", seconds=None)

    assert users.set_active(connection, ann.id, False).active is False
    assert users.role(connection, ann.id, cats.id) is None
    assert tokens.user_of(connection, secret) is None
    assert len(users.memberships(connection, ann.id)) == 1
    users.set_active(connection, ann.id, True)
    assert users.role(connection, ann.id, cats.id) is Role.MANAGER
    assert tokens.user_of(connection, secret) is not None


def test_a_removed_user_leaves_nothing(connection, ann, cats):
    users.join(connection, ann.id, cats.id, Role.MANAGER)
    _, secret = tokens.create(connection, ann.id, name="laptop", seconds=None)

    users.remove(connection, ann.id)
    assert users.list_all(connection) == []
    assert tokens.user_of(connection, secret) is None
    assert tokens.list_of(connection, ann.id) == []
    assert users.memberships(connection, ann.id) == []


def test_a_secret_tells_its_user_and_is_kept_nowhere(connection, ann):
    token, secret = tokens.create(connection, ann.id, name="laptop", seconds=3600)

    assert secret.startswith("lp_")
    assert len(secret) == 46
    assert tokens.user_of(connection, secret) == (ann, token)
    assert (token.user_id, token.name, token.kind) == (ann.id, "laptop", TokenKind.API)
    assert timedelta(minutes=59) < token.expires_at - datetime.now(UTC) < timedelta(minutes=61)
    assert token.last_used_at is None
    (row,) = connection.execute(sa.select(schema.access_tokens))
    assert not any(secret[3:] in str(value) for value in row)
    assert secret not in repr(token)


@pytest.mark.parametrize("secret", ["", "lp_", "lp_" + "A" * 43, "é\0\ud800"])
def test_an_unknown_secret_is_nobodys(connection, ann, secret):
    tokens.create(connection, ann.id, name="laptop", seconds=None)

    assert tokens.user_of(connection, secret) is None
    assert tokens.revoke_secret(connection, secret) is False


def test_a_kind_of_token_opens_only_what_asks_for_it(connection, ann):
    _, secret = tokens.create(
        connection, ann.id, name="browser", kind=TokenKind.SESSION, seconds=60
    )

    assert tokens.user_of(connection, secret, TokenKind.API) is None
    assert tokens.user_of(connection, secret, TokenKind.SESSION) is not None


def test_an_expired_token_is_no_good(connection, ann):
    token, secret = tokens.create(connection, ann.id, name="laptop", seconds=60)
    _expire(connection, token)

    assert tokens.user_of(connection, secret) is None
    assert [each.id for each in tokens.list_of(connection, ann.id)] == [token.id]


@pytest.mark.parametrize("seconds", [0, -1, 1e11, 1e300, float("inf"), float("nan")])
def test_a_token_lives_for_a_time_that_is_one(connection, ann, seconds):
    with pytest.raises(ConfigurationError, match="ten years"):
        tokens.create(connection, ann.id, name="laptop", seconds=seconds)


def test_the_longest_life_is_kept_as_it_is(connection, ann):
    token, _ = tokens.create(connection, ann.id, name="laptop", seconds=3650 * 86_400)

    assert token.expires_at > datetime.now(UTC) + timedelta(days=3649)


def test_a_token_has_a_user_and_a_name(connection, ann):
    with pytest.raises(NotFound):
        tokens.create(connection, 99, name="laptop", seconds=None)
    with pytest.raises(ConfigurationError, match="token name"):
        tokens.create(connection, ann.id, name=" ", seconds=None)


def test_a_revoked_token_is_no_good(connection, ann):
    token, secret = tokens.create(connection, ann.id, name="laptop", seconds=None)
    _, other = tokens.create(connection, ann.id, name="phone", seconds=None)

    tokens.revoke(connection, token.id)
    assert tokens.user_of(connection, secret) is None
    with pytest.raises(NotFound, match="labelport tokens list"):
        tokens.revoke(connection, token.id)
    assert tokens.revoke_secret(connection, other) is True
    assert tokens.list_of(connection, ann.id) == []


def test_use_is_noted_once_a_minute(connection, ann):
    token, _ = tokens.create(connection, ann.id, name="laptop", seconds=None)

    assert tokens.untouched(token)
    tokens.touch(connection, token.id)
    assert not tokens.untouched(*tokens.list_of(connection, ann.id))
    first = _last_used(connection, ann)
    tokens.touch(connection, token.id)
    assert _last_used(connection, ann) == first
    earlier = first - timedelta(seconds=61)
    connection.execute(schema.access_tokens.update().values(last_used_at=earlier))
    assert tokens.untouched(*tokens.list_of(connection, ann.id))
    tokens.touch(connection, token.id)
    assert _last_used(connection, ann) >= first


def test_only_expired_sessions_are_pruned(connection, ann):
    made = {
        name: tokens.create(connection, ann.id, name=name, kind=kind, seconds=seconds)[0]
        for name, kind, seconds in (
            ("expired session", TokenKind.SESSION, 60),
            ("session", TokenKind.SESSION, 60),
            ("endless session", TokenKind.SESSION, None),
            ("expired api", TokenKind.API, 60),
        )
    }
    for name in ("expired session", "expired api"):
        _expire(connection, made[name])

    assert tokens.prune(connection) == 1
    left = [token.name for token in tokens.list_of(connection, ann.id)]
    assert left == ["session", "endless session", "expired api"]


def test_a_task_is_told_with_its_data_and_its_storage(connection):
    storage = any_storage(connection)
    (task_id,) = import_tasks(connection, storage, ["2024/ä?.jpg"])

    found = access.task(connection, task_id)
    assert (found.task_id, found.project_id) == (task_id, storage.project_id)
    assert json.loads(found.data) == {"image": "s3://photos/2024/ä?.jpg"}
    assert found.link_storage_id == storage.id
    assert access.task(connection, 99) is None

    storages.remove(connection, storage.id)
    assert access.task(connection, task_id).link_storage_id is None


def test_an_object_is_a_task_while_both_exist(connection):
    storage, other = any_storage(connection), any_storage(connection, "videos")
    task_ids = import_tasks(connection, storage, ["2024/a.jpg", "2024/b.jpg"])

    assert access.is_a_task(connection, storage.id, "2024/a.jpg") is True
    assert access.is_a_task(connection, storage.id, "2024/a.jp") is False
    assert access.is_a_task(connection, other.id, "2024/a.jpg") is False
    tasks.delete(connection, task_ids[:1])
    assert access.is_a_task(connection, storage.id, "2024/a.jpg") is False
    connection.execute(schema.import_objects.update().values(object_exists=False))
    assert access.is_a_task(connection, storage.id, "2024/b.jpg") is False


def test_a_storage_serves_only_what_tasks_refer_to_unless_it_says_so(connection):
    storage = any_storage(connection)
    assert storage.serve_any_key is False

    assert storages.update(connection, storage.id, serve_any_key=True).serve_any_key is True
    assert storages.get(connection, "photos").serve_any_key is True


def _expire(connection, token):
    this = schema.access_tokens.c.id == token.id
    moment = datetime.now(UTC) - timedelta(seconds=1)
    connection.execute(schema.access_tokens.update().where(this).values(expires_at=moment))


def _last_used(connection, user):
    (token,) = tokens.list_of(connection, user.id)
    return token.last_used_at
