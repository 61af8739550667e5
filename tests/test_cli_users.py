"""Users and tokens on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from labelport.catalog import Catalog, tokens
from labelport.cli import main


@pytest.fixture
def catalog(sqlite_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A catalog with the project "Cats", where the command line looks for it."""
    path = tmp_path / "catalog.db"
    path.write_bytes(sqlite_template.read_bytes())
    monkeypatch.setenv("LABELPORT_CATALOG_URL", f"sqlite:///{path}")
    with Catalog() as catalog:
        assert main(["projects", "add", "Cats"]) == 0
        yield catalog


@pytest.fixture
def answer(catalog, capsys):
    """Run a command with ``--json``; its exit status and what it answered."""

    def run(*arguments: str):
        capsys.readouterr()
        status = main([*arguments, "--json"])
        return status, json.loads(capsys.readouterr().out)

    return run


@pytest.fixture
def ann(answer):
    return answer("users", "add", "Ann@Example.com")[1]


def test_users_are_added_listed_and_removed(answer, ann):
    assert (ann["email"], ann["active"]) == ("ann@example.com", True)
    assert answer("users", "list") == (0, [ann])
    assert answer("users", "show", "ANN@example.com") == (0, {**ann, "memberships": []})
    assert answer("users", "remove", str(ann["id"])) == (0, {"removed": ann["id"]})
    assert answer("users", "list") == (0, [])


def test_users_are_kept_out_and_let_in(answer, ann):
    assert answer("users", "deactivate", ann["email"]) == (0, {**ann, "active": False})
    assert answer("users", "activate", ann["email"]) == (0, ann)


def test_users_join_and_leave_projects(answer, ann):
    membership = {"user_id": ann["id"], "project_id": 1, "role": "annotator"}

    assert answer("users", "join", ann["email"], "--project", "Cats") == (0, membership)
    managing = {**membership, "role": "manager"}
    join = ("users", "join", ann["email"], "--project", "1", "--role", "manager")
    assert answer(*join) == (0, managing)
    assert answer("users", "show", ann["email"])[1]["memberships"] == [managing]
    left = {"user_id": ann["id"], "left": 1}
    assert answer("users", "leave", ann["email"], "--project", "Cats") == (0, left)
    assert answer("users", "show", ann["email"])[1]["memberships"] == []


def test_a_tokens_secret_is_answered_once(catalog, answer, ann):
    status, added = answer("tokens", "add", ann["email"], "--name", "laptop", "--days", "30")
    secret = added.pop("secret")

    assert (status, added["name"], added["kind"]) == (0, "laptop", "api")
    assert added["expires_at"] is not None
    assert answer("tokens", "list", ann["email"]) == (0, [added])
    with catalog.read() as connection:
        user, token = tokens.user_of(connection, secret)
    assert (user.id, token.id) == (ann["id"], added["id"])

    assert answer("tokens", "revoke", str(added["id"])) == (0, {"revoked": added["id"]})
    assert answer("tokens", "list", ann["email"]) == (0, [])
    with catalog.read() as connection:
        assert tokens.user_of(connection, secret) is None


def test_a_token_without_days_lives_until_it_is_revoked(answer, ann):
    assert answer("tokens", "add", ann["email"], "--name", "laptop")[1]["expires_at"] is None


def test_people_see_users_and_tokens(catalog, ann, capsys):
    for arguments, words in (
        (["users", "add", "bob@example.com"], "user bob@example.com has id 2"),
        (["users", "join", "bob@example.com", "--project", "Cats"], "is annotator of project Cats"),
        (["users", "show", "bob@example.com"], "Cats"),
        (["users", "list"], "ann@example.com"),
        (["tokens", "add", "bob@example.com", "--name", "laptop"], "\nlp_"),
        (["tokens", "list", "bob@example.com"], "laptop"),
        (["tokens", "revoke", "1"], "token 1 is revoked"),
        (["users", "deactivate", "bob@example.com"], "is kept out"),
        (["users", "activate", "bob@example.com"], "is active"),
        (["users", "leave", "bob@example.com", "--project", "1"], "is no member of project Cats"),
        (["users", "remove", "bob@example.com"], "user bob@example.com is removed"),
    ):
        assert main(arguments) == 0
        assert words in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["users", "add", "ann"], "no e-mail address"),
        (["users", "add", "ANN@example.com"], "already"),
        (["users", "show", "bob@example.com"], "labelport users list"),
        (["users", "join", "ann@example.com", "--project", "Dogs"], "labelport projects list"),
        (["users", "leave", "ann@example.com", "--project", "Cats"], "no member"),
        (["tokens", "add", "ann@example.com", "--name", "7"], "token name"),
        (["tokens", "add", "ann@example.com", "--name", "x", "--days", "9999"], "ten years"),
        (["tokens", "revoke", "7"], "labelport tokens list"),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)
def test_what_cannot_be_is_a_sentence(catalog, ann, capsys, arguments, words):
    capsys.readouterr()

    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.err.count("\n") == 1
