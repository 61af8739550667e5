"""Cookie sessions: for browsers, whose images and players can send no token."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from http.cookies import Morsel, SimpleCookie
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import sqlalchemy as sa

from labelport.catalog import Catalog, tokens, users
from labelport.catalog.schema import access_tokens
from labelport.model import TokenKind
from proxies import Answer, Client, Running, Somebody, project, proxy, somebody, storage, task
from served import Root, served, verdict

URI = "file://cats/a.jpg"
JSON = {"Content-Type": "application/json"}


class Site(NamedTuple):
    catalog: Catalog
    running: Running
    ann: Somebody
    task_id: int

    @property
    def anybody(self) -> Client:
        return Client(self.running.url)

    def log_in(self, secret: str | None = None) -> str:
        """The cookie of a new session."""
        answer = self.running.as_user(secret or self.ann.secret).send("POST", "/session")
        assert answer.status == 201
        return f"labelport_session={cookie_of(answer).value}"

    def ask(self, headers: dict[str, str], running: Running | None = None) -> int:
        """The status of the object of Ann's task."""
        client = Client((running or self.running).url, headers)
        return client.get("tasks", self.task_id, URI).status

    def new_user(self, email: str) -> Somebody:
        """Somebody who may see nothing."""
        return somebody(self.catalog, email)


@pytest.fixture(scope="module")
def site(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("sessions")
    root = Root(folder)
    root.put("cats", "a.jpg")
    with served(sqlite_template, folder, root) as (catalog, running):
        cats = project(catalog, "cats")
        storage(catalog, cats, "photos", "file://cats")
        ann = somebody(catalog, "ann@example.org", cats)
        yield Site(catalog, running, ann, task(catalog, cats, {"image": URI}))


def cookie_of(answer: Answer) -> Morsel[str]:
    return SimpleCookie(answer.headers["set-cookie"])["labelport_session"]


def sessions_of(site: Site) -> int:
    with site.catalog.read() as connection:
        found = tokens.list_of(connection, site.ann.id)
    return sum(token.kind is TokenKind.SESSION for token in found)


def test_a_token_becomes_a_cookie_that_scripts_and_other_sites_do_not_get(site):
    answer = site.running.as_user(site.ann.secret).send("POST", "/session")
    cookie = cookie_of(answer)

    assert answer.status == 201
    assert json.loads(answer.body)["user"] == "ann@example.org"
    assert answer.headers["cache-control"] == "no-store"
    assert {name: value for name, value in cookie.items() if value} == {
        "httponly": True,
        "max-age": str(12 * 3600),
        "path": "/",
        "samesite": "lax",
        "secure": True,
    }
    assert cookie.value != site.ann.secret
    assert cookie.value not in answer.body.decode()
    assert site.ask({"Cookie": f"labelport_session={cookie.value}"}) == 200


def test_a_browser_may_log_in_with_json(site):
    body = json.dumps({"token": site.ann.secret}).encode()
    answer = site.anybody.send("POST", "/session", JSON, body)

    assert answer.status == 201
    assert site.ask({"Cookie": f"labelport_session={cookie_of(answer).value}"}) == 200


def test_a_cookie_for_http_is_the_operators_choice(sqlite_template, tmp_path):
    with served(
        sqlite_template, tmp_path, Root(tmp_path), cookie_secure=False, session_seconds=60
    ) as (catalog, running):
        secret = somebody(catalog, "ann@example.org").secret
        cookie = cookie_of(running.as_user(secret).send("POST", "/session"))

    assert (cookie["secure"], cookie["max-age"], cookie["httponly"]) == ("", "60", True)


FORGED: dict[str, tuple[dict[str, str], bytes]] = {
    "form": ({"Content-Type": "application/x-www-form-urlencoded"}, b"token=%s"),
    "form with files": ({"Content-Type": "multipart/form-data; boundary=b"}, b"%s"),
    "text": ({"Content-Type": "text/plain"}, b'{"token": "%s"}'),
    "text that says it is JSON": (
        {"Content-Type": "text/plain; charset=application/json"},
        b'{"token": "%s"}',
    ),
    "no type": ({}, b'{"token": "%s"}'),
}


@pytest.mark.parametrize(("headers", "body"), FORGED.values(), ids=FORGED)
def test_a_form_of_another_site_logs_nobody_in(site, headers, body):
    """What a browser sends for any page without asking first is no login."""
    before = sessions_of(site)
    answer = site.anybody.send("POST", "/session", headers, body % site.ann.secret.encode())

    assert verdict(answer) == (400, "bad_request")
    assert "set-cookie" not in answer.headers
    assert sessions_of(site) == before


def test_other_sites_are_not_allowed_to_send_json(site):
    headers = {
        "Origin": "https://evil.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
    }
    answer = site.anybody.send("OPTIONS", "/session", headers)

    assert answer.status == 204
    assert not any(name.startswith("access-control-") for name in answer.headers)


BODIES = {
    "empty": b"",
    "no JSON": b"{",
    "a list": b"[]",
    "no token": b"{}",
    "a number": b'{"token": 1}',
    "more": b'{"token": "x", "more": 1}',
    "not UTF-8": b'{"token": "\xff"}',
    "a name that is not UTF-8": b'{"\xff": 1}',
    "half a surrogate pair": b'{"token": "\\ud800"}',
    "nested": b"[" * 60_000,
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_body_that_is_no_login_is_a_bad_request(site, body):
    assert verdict(site.anybody.send("POST", "/session", JSON, body)) == (400, "bad_request")


def test_a_large_body_is_not_read(site):
    answer = site.anybody.send("POST", "/session", JSON, b" " * (64 * 1024 + 1))

    assert verdict(answer) == (413, "too_large")


@pytest.mark.parametrize("secret", ["", "x", "lp_" + "x" * 43, "é", "x" * 20_000], ids=len)
def test_a_token_that_is_unknown_logs_nobody_in(site, secret):
    body = json.dumps({"token": secret}).encode()
    answer = site.anybody.send("POST", "/session", JSON, body)

    assert verdict(answer) == (401, "unauthenticated")
    assert "set-cookie" not in answer.headers


def test_a_cookie_is_no_token_and_a_token_no_cookie(site):
    cookie = site.log_in()
    secret = cookie.partition("=")[2]

    assert site.ask({"Authorization": f"Bearer {secret}"}) == 401
    assert site.ask({"Cookie": f"labelport_session={site.ann.secret}"}) == 401
    assert site.anybody.send("POST", "/session", {"Cookie": cookie}).status == 400


def test_a_session_ends_in_time(site):
    cookie = site.log_in()
    assert site.ask({"Cookie": cookie}) == 200
    with site.catalog.begin() as connection:
        past = sa.text("'2020-01-01 00:00:00.000000'")
        sessions = access_tokens.c.kind == TokenKind.SESSION
        connection.execute(access_tokens.update().where(sessions).values(expires_at=past))

    assert site.ask({"Cookie": cookie}) == 401


def test_a_login_forgets_sessions_that_ended(site):
    test_a_session_ends_in_time(site)
    site.log_in()

    assert sessions_of(site) == 1


def test_the_session_of_who_is_kept_out_ends(site):
    user = site.new_user("off@example.org")
    cookie = site.log_in(user.secret)
    assert site.ask({"Cookie": cookie}) == 404
    with site.catalog.begin() as connection:
        users.set_active(connection, user.id, active=False)

    assert site.ask({"Cookie": cookie}) == 401


def test_who_logs_out_is_out_everywhere(site, sqlite_template):
    """At once here, and elsewhere as soon as what was remembered is forgotten."""
    seconds = 0.3
    url = str(site.catalog.engine.url)
    root = Root(Path(url.removeprefix("sqlite:///")).parent)
    with (
        proxy(Catalog(url), root, access_seconds=seconds) as here,
        proxy(Catalog(url), root, access_seconds=seconds) as there,
    ):
        cookie, other = {"Cookie": site.log_in()}, {"Cookie": site.log_in()}
        assert site.ask(cookie, here) == site.ask(cookie, there) == 200

        ended = Client(here.url, cookie).send("DELETE", "/session")
        until = time.monotonic() + seconds
        assert site.ask(cookie, here) == 401
        while time.monotonic() < until:
            assert site.ask(cookie, there) in (200, 401)

        assert site.ask(cookie, there) == 401
        assert site.ask(other, here) == site.ask(other, there) == 200
    assert ended.status == 204
    assert cookie_of(ended)["max-age"] == "0"
    assert cookie_of(ended)["path"] == "/"
    assert cookie_of(ended).value == ""


@pytest.mark.parametrize("cookie", [None, "labelport_session=x", "labelport_session="])
def test_it_is_no_error_not_to_be_logged_in(site, cookie):
    headers = {"Cookie": cookie} if cookie else {}

    assert site.anybody.send("DELETE", "/session", headers).status == 204


def test_logging_out_revokes_no_token(site):
    cookie = f"labelport_session={site.ann.secret}"

    assert site.anybody.send("DELETE", "/session", {"Cookie": cookie}).status == 204
    assert site.ask({"Authorization": f"Token {site.ann.secret}"}) == 200


def test_a_header_counts_before_a_cookie(site):
    """Whoever sends one means it: a bad one is refused, whatever the cookie says."""
    cookie = site.log_in()
    stranger = site.new_user("stranger@example.org")

    assert site.ask({"Cookie": cookie, "Authorization": "Bearer x"}) == 401
    assert site.ask({"Cookie": cookie, "Authorization": f"Bearer {stranger.secret}"}) == 404
    assert (
        site.ask({"Cookie": "labelport_session=x", "Authorization": f"Bearer {site.ann.secret}"})
        == 200
    )


AUTHORIZATIONS = {
    "Bearer": ("Bearer {}", 200),
    "Token": ("Token {}", 200),
    "any case": ("bEARER {}", 200),
    "more spaces": ("Bearer   {} ", 200),
    "alone": ("{}", 401),
    "Basic": ("Basic {}", 401),
    "empty": ("", 401),
    "no secret": ("Bearer", 401),
    "two": ("Bearer {0} {0}", 401),
    "quoted": ('Bearer "{}"', 401),
    "shorter": ("Bearer {:.45}", 401),
    "not ASCII": ("Bearer \xe9", 401),
}


@pytest.mark.parametrize(("header", "status"), AUTHORIZATIONS.values(), ids=AUTHORIZATIONS)
def test_how_a_token_is_sent(site, header, status):
    assert site.ask({"Authorization": header.format(site.ann.secret)}) == status


COOKIES = {
    "alone": "{}",
    "between others": "a=1; {}; b=2",
    "after JSON": 'prefs={{"a": 1, "b": [2]}}; {}',
    "after what has no name": "=1; {}",
    "after what has no value": "flag; {}",
    "after text": 'note=a "quoted" word; {}',
    "after other letters": "name=J\xfcrgen; {}",
    "after a name with brackets": "a[b]=1; {}",
    "without spaces": "a=1;{};b=2",
}


@pytest.mark.parametrize("cookies", COOKIES.values(), ids=COOKIES)
def test_cookies_of_others_do_not_hide_ours(site, cookies):
    """Whatever else runs on the host sets cookies too, and not all of them by the book."""
    assert site.ask({"Cookie": cookies.format(site.log_in())}) == 200


@pytest.mark.parametrize(
    "cookie",
    ["labelport_session=x", "labelport_session", "xlabelport_session={}", "Labelport_Session={}"],
)
def test_a_cookie_that_is_none_of_ours_is_nobodys(site, cookie):
    secret = site.log_in().partition("=")[2]

    assert site.ask({"Cookie": cookie.format(secret)}) == 401


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_an_object_sets_no_cookie(site, method):
    """It may be kept by browsers, and a cookie with it."""
    target = f"/tasks/{site.task_id}/resolve/?fileuri={URI}"
    answer = site.anybody.send(method, target, {"Cookie": site.log_in()})

    assert answer.status == 200
    assert "set-cookie" not in answer.headers
    assert answer.headers["cache-control"].startswith("private")
    assert {"Cookie", "Authorization"} <= set(answer.headers["vary"].split(", "))


def test_a_refusal_is_not_kept(site):
    answer: Any = site.anybody.get("tasks", site.task_id, URI)

    assert answer.headers["cache-control"] == "no-store"
    assert "set-cookie" not in answer.headers


def test_a_session_ends_with_the_token_it_was_begun_with(site):
    with site.catalog.begin() as connection:
        made, secret = tokens.create(connection, site.ann.id, name="phone", seconds=60)
    answer = site.running.as_user(secret).send("POST", "/session")
    cookie = {"Cookie": answer.headers["set-cookie"].partition(";")[0]}
    expires_at = datetime.fromisoformat(json.loads(answer.body)["expires_at"])
    assert site.anybody.get("tasks", site.task_id, URI, cookie).status == 200

    with site.catalog.begin() as connection:
        tokens.revoke(connection, made.id)

    assert made.expires_at is not None
    assert abs((expires_at - made.expires_at).total_seconds()) < 1
    assert int(cookie_of(answer)["max-age"]) in (59, 60)
    assert site.anybody.get("tasks", site.task_id, URI, cookie).status == 401


@pytest.mark.parametrize("removed", [False, True], ids=["token", "user"])
def test_a_token_that_is_still_remembered_begins_no_session(removed, site):
    """What is taken away works for seconds only: nothing that lasts longer comes of it."""
    bob = site.new_user(f"bob-{removed}@example.org")
    with proxy(Catalog(str(site.catalog.engine.url)), Root(Path()), access_seconds=60.0) as running:
        client = running.as_user(bob.secret)
        assert client.get("tasks", site.task_id, URI).status == 404
        with site.catalog.begin() as connection:
            if removed:
                users.remove(connection, bob.id)
            else:
                (token,) = tokens.list_of(connection, bob.id)
                tokens.revoke(connection, token.id)

        assert client.get("tasks", site.task_id, URI).status == 404
        answer = client.send("POST", "/session")
        then = client.get("tasks", site.task_id, URI).status

    assert verdict(answer) == (401, "unauthenticated")
    assert "set-cookie" not in answer.headers
    assert then == 401  # what was found out is not forgotten


def last_use(site: Site, user: Somebody) -> datetime | None:
    with site.catalog.read() as connection:
        (token,) = tokens.list_of(connection, user.id)
    return token.last_used_at


def test_whoever_writes_to_the_catalog_makes_nobody_wait(site):
    """Neither who shows a token for the first time in a while, nor others, nor who logs out."""
    new, other = site.new_user("new@example.org"), site.new_user("other@example.org")
    nobody = {"Cookie": f"labelport_session=lp_{'x' * 43}"}

    def ask(user: Somebody) -> int:
        return site.ask({"Authorization": f"Bearer {user.secret}"})

    with ThreadPoolExecutor(8) as pool, site.catalog.begin():  # nobody else can write now
        statuses = [*pool.map(ask, [new] * 8), ask(other)]
        ready = site.anybody.send("GET", "/readyz").status
        logged_out = site.anybody.send("DELETE", "/session", nobody).status
        uses = [last_use(site, user) for user in (new, other)]

    assert statuses == [404] * 9
    assert (ready, logged_out) == (200, 204)
    assert uses == [None, None]
    until = time.monotonic() + 10
    while None in [last_use(site, user) for user in (new, other)]:
        assert time.monotonic() < until
