"""What one user may ask for: so many requests a second, so many streams at once."""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from labelport.catalog import Catalog
from labelport.links import signed_url
from labelport.resolving import proxy_url
from labelport_proxy.limits import Limits
from labelport_proxy.refusing import Refusal
from proxies import SECRET, Answer, Client, Running, Somebody, project, somebody, storage
from served import Root, served, verdict

SMALL, LARGE = "file://cats/a.jpg", "file://cats/large.bin"
TOO_MANY = (429, "too_many_requests")


class Site(NamedTuple):
    catalog: Catalog
    running: Running
    cats: int

    def member(self, email: str) -> tuple[Somebody, Client]:
        user = somebody(self.catalog, email, self.cats)
        return user, self.running.as_user(user.secret)


@contextmanager
def limited(template: Path, folder: Path, **changes: float) -> Iterator[Site]:
    root = Root(folder)
    root.put("cats", "a.jpg")
    with (folder / "cats/large.bin").open("wb") as file:
        file.truncate(256 << 20)
    with served(template, folder, root, **changes) as (catalog, running):
        cats = project(catalog, "cats")
        storage(catalog, cats, "photos", "file://cats", serve_any_key=True)
        yield Site(catalog, running, cats)


def run_out(ask: Callable[[], Answer]) -> list[Answer]:
    """Ask until that is once too often; the answers."""
    answers = [ask()]
    while answers[-1].status != 429:
        assert len(answers) < 300
        answers.append(ask())
    return answers


def test_requests_of_one_user_are_counted(sqlite_template, tmp_path):
    """Four seconds' worth at once, and then so many a second; others do not notice."""
    with limited(sqlite_template, tmp_path, requests_per_second=5.0) as site:
        _, client = site.member("ann@example.org")
        _, other = site.member("bob@example.org")
        begun = time.monotonic()
        *served, refused = run_out(lambda: client.get("projects", site.cats, SMALL))
        allowed = 20 + (time.monotonic() - begun) * 5

        assert {answer.status for answer in served} == {200}
        assert 20 <= len(served) <= allowed
        assert verdict(refused) == TOO_MANY
        assert refused.headers["retry-after"] == "1"
        assert other.get("projects", site.cats, SMALL).status == 200
        assert Client(site.running.url).send("GET", "/healthz").status == 200

        until = time.monotonic() + 10
        while client.get("projects", site.cats, SMALL).status == 429:
            assert time.monotonic() < until


def test_whatever_a_user_asks_for_counts(sqlite_template, tmp_path):
    """And whatever says who they are."""
    with limited(sqlite_template, tmp_path, requests_per_second=5.0) as site:
        ann, client = site.member("ann@example.org")
        expires = int(time.time()) + 60
        link = signed_url(
            *("", "projects", site.cats, SMALL), secret=SECRET, user_id=ann.id, expires=expires
        )

        run_out(lambda: client.get("projects", site.cats, SMALL))
        run_out(lambda: client.get("projects", 10**6, SMALL))
        run_out(lambda: client.get("projects", site.cats, "file://elsewhere/a.jpg"))
        run_out(lambda: client.send("POST", "/webhooks/annotations", body=b"{}"))
        run_out(lambda: client.send("POST", "/session"))
        run_out(lambda: Client(site.running.url).send("GET", link))


def failing(site: Site, address: str = "192.0.2.1") -> Client:
    """Somebody who sends another token each time, of which none lets anybody in."""

    class Failing(Client):
        def send(self, *given: Any, **more: Any) -> Answer:
            secret = f"lp_{secrets.token_urlsafe(32)}"
            self.headers |= {
                "Authorization": f"Bearer {secret}",
                "Cookie": f"labelport_session={secret}",
                "X-Forwarded-For": address,
            }
            return super().send(*given, **more)

    return Failing(site.running.url)


def test_failing_to_be_anybody_is_counted_by_address(sqlite_template, tmp_path):
    """Other addresses do not notice, nor does whoever was let in from the same one."""
    with limited(sqlite_template, tmp_path, requests_per_second=5.0) as site:
        member, client = site.member("ann@example.org")
        client.headers["X-Forwarded-For"] = "192.0.2.1"
        assert client.get("projects", site.cats, SMALL).status == 200
        nobody = failing(site)
        *unknown, refused = run_out(lambda: nobody.get("projects", site.cats, SMALL))

        assert {answer.status for answer in unknown} == {401}
        assert len(unknown) >= 20
        assert verdict(refused) == TOO_MANY
        assert client.get("projects", site.cats, SMALL).status == 200
        assert failing(site, "192.0.2.2").get("projects", site.cats, SMALL).status == 401
        run_out(lambda: nobody.send("POST", "/session"))
        run_out(lambda: nobody.send("POST", "/webhooks/annotations"))
        run_out(lambda: nobody.send("DELETE", "/session"))
        by_link = {"Authorization": f"Bearer {member.secret}", "X-Forwarded-For": "192.0.2.1"}
        assert Client(site.running.url, by_link).send("POST", "/session").status == 201


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("unknown", "192.0.2.1", False),
    ],
)
def test_a_network_of_ipv6_is_one_address(sqlite_template, tmp_path, first, second, together):
    with limited(sqlite_template, tmp_path, requests_per_second=1.0) as site:
        nobody = failing(site, first)
        run_out(lambda: nobody.send("POST", "/session"))
        answer = failing(site, second).send("POST", "/session")

    assert answer.status == (429 if together else 401)


@pytest.mark.parametrize(
    "secret", ["x", "lp_x", "lp_" + "x" * 42, "lp_" + "x" * 44, "lp_" + "é" * 43]
)
def test_what_is_no_token_costs_nothing_and_is_not_counted(sqlite_template, tmp_path, secret):
    """It is refused as it is, whatever the catalog does."""
    headers = {"Authorization": f"Bearer {secret}".encode().decode("latin-1")}
    with limited(sqlite_template, tmp_path, requests_per_second=1.0) as site:
        client = Client(site.running.url, headers)
        with site.catalog.begin() as connection:
            connection.exec_driver_sql("DROP TABLE access_tokens")
        answers = {client.get("projects", site.cats, SMALL).status for _ in range(8)}

    assert answers == {401}


def test_zero_is_no_limit(sqlite_template, tmp_path):
    with limited(sqlite_template, tmp_path, requests_per_second=0, streams_per_user=0) as site:
        _, client = site.member("ann@example.org")
        with ExitStack() as stack:
            for _ in range(5):
                stack.enter_context(held_stream(site, client))

            assert client.get("projects", site.cats, SMALL).status == 200


@contextmanager
def held_stream(site: Site, client: Client) -> Iterator[None]:
    """A client that has begun to read a large object, and does not go on."""
    place = urlsplit(site.running.url)
    target = proxy_url("", "projects", site.cats, LARGE)
    lines = [f"GET {target} HTTP/1.1", "Host: proxy"]
    lines += [f"{name}: {value}" for name, value in client.headers.items()]
    with socket.create_connection((place.hostname, place.port), timeout=30) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        assert connection.recv(12) == b"HTTP/1.1 200"
        yield


def test_less_than_one_in_four_seconds_is_no_prohibition():
    now = 0.0
    limits = Limits(0.1, 0, lambda: now)

    limits.count(1)
    with pytest.raises(Refusal, match="Too many"):
        limits.count(1)
    now = 10.0
    limits.count(1)


def test_streams_of_one_user_are_counted(sqlite_template, tmp_path):
    with limited(sqlite_template, tmp_path, streams_per_user=2) as site:
        _, client = site.member("ann@example.org")
        _, other = site.member("bob@example.org")
        with held_stream(site, client):
            with held_stream(site, client):
                refused = client.get("projects", site.cats, SMALL)
                ranged = client.get("projects", site.cats, SMALL, {"Range": "bytes=0-0"})
                head = client.send("HEAD", proxy_url("", "projects", site.cats, SMALL))

                assert [verdict(refused), verdict(ranged)] == [TOO_MANY, TOO_MANY]
                assert refused.headers["retry-after"] == "1"
                assert head.status == 429
                assert other.get("projects", site.cats, SMALL).status == 200

            # Whoever leaves makes room, as soon as that is noticed.
            until = time.monotonic() + 10
            while client.get("projects", site.cats, SMALL).status == 429:
                assert time.monotonic() < until
        answers = [client.get("projects", site.cats, SMALL).status for _ in range(10)]
        assert answers == [200] * 10


@pytest.mark.parametrize("uri", ["file://cats/none.jpg", "file://cats/a//b.jpg"])
def test_what_fails_is_no_stream_any_more(sqlite_template, tmp_path, uri):
    with limited(sqlite_template, tmp_path, streams_per_user=1) as site:
        _, client = site.member("ann@example.org")
        answers = {client.get("projects", site.cats, uri).status for _ in range(4)}

        assert answers <= {400, 404}
        assert client.get("projects", site.cats, SMALL).status == 200
