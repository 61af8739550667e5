"""Signed links: for pages of other sites. They say who asks; rights are looked at every time."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from labelport.catalog import Catalog, users
from labelport.links import signed_url
from labelport.resolving import proxy_url
from proxies import SECRET, Client, Running, Somebody, project, somebody, storage, task
from served import Root, served, told, verdict

URI, OTHER = "file://cats/a.jpg", "file://cats/b.jpg"
TRUSTED = "https://app.example.org"
CORP = "cross-origin-resource-policy"


class Site(NamedTuple):
    catalog: Catalog
    running: Running
    root: Root
    ann: Somebody
    boss: Somebody
    cats: int
    task_id: int
    other_task_id: int  #: refers to the same object

    def link(self, **changes: Any) -> str:
        """A good link of Ann's, but for *changes*."""
        given = {
            **{"kind": "tasks", "number": self.task_id, "uri": URI, "secret": SECRET},
            **{"user_id": self.ann.id, "expires": int(time.time()) + 600, **changes},
        }
        return signed_url("", given.pop("kind"), given.pop("number"), given.pop("uri"), **given)

    @property
    def anybody(self) -> Client:
        return Client(self.running.url)


@contextmanager
def any_site(template: Path, folder: Path, **changes: Any) -> Iterator[Site]:
    root = Root(folder)
    root.put("cats", "a.jpg")
    root.put("cats", "b.jpg")
    with served(template, folder, root, **changes) as (catalog, running):
        cats = project(catalog, "cats")
        storage(catalog, cats, "photos", "file://cats", serve_any_key=True)
        data = {"images": [URI, OTHER]}
        yield Site(
            catalog,
            running,
            root,
            somebody(catalog, "ann@example.org", cats),
            somebody(catalog, "boss@example.org", cats),
            cats,
            task(catalog, cats, data),
            task(catalog, cats, data),
        )


@pytest.fixture(scope="module")
def site(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with any_site(sqlite_template, tmp_path_factory.mktemp("links")) as site:
        yield site


@pytest.fixture(scope="module")
def open_site(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Scripts of another origin may read what it serves."""
    folder = tmp_path_factory.mktemp("origins")
    with any_site(sqlite_template, folder, allowed_origins=(TRUSTED,)) as site:
        yield site


GOOD: Mapping[str, Callable[[Site], str]] = {
    "of a task": lambda site: site.link(),
    "of a project": lambda site: site.link(kind="projects", number=site.cats),
    "the number written longer": lambda site: site.link().replace("/tasks/", "/tasks/0"),
    "without the slash": lambda site: site.link().replace("/resolve/?", "/resolve?"),
    "in another order": lambda site: re.sub(r"\?(.+?)&(.+)", r"?\2&\1", site.link()),
    "the URI written plainly": lambda site: re.sub("fileuri=[^&]+", f"fileuri={URI}", site.link()),
}


@pytest.mark.parametrize("make", GOOD.values(), ids=GOOD)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_link_opens_what_it_was_made_for(site, make, method):
    answer = site.anybody.send(method, make(site))

    assert answer.status == 200
    assert answer.headers["cross-origin-resource-policy"] == "cross-origin"


def changed(name: str, value: str) -> Callable[[Site], str]:
    """A good link with another value for one of its names."""
    return lambda site: re.sub(rf"\b{name}=[^&]*", f"{name}={value}", site.link())


BAD: Mapping[str, Callable[[Site], str]] = {
    "expired": lambda site: site.link(expires=int(time.time())),
    "expired long ago": lambda site: site.link(expires=1),
    "of another task": lambda site: site.link(number=site.other_task_id).replace(
        f"/tasks/{site.other_task_id}/", f"/tasks/{site.task_id}/"
    ),
    "of a project": lambda site: site.link(kind="projects").replace("/projects/", "/tasks/"),
    "of a task, for its project": lambda site: site.link(number=site.cats).replace(
        "/tasks/", "/projects/"
    ),
    "of another object": lambda site: re.sub(
        "fileuri=[^&]+", proxy_url("", "tasks", 1, OTHER).partition("?")[2], site.link()
    ),
    "of another user": lambda site: re.sub(r"user=\d+", f"user={site.boss.id}", site.link()),
    "made to last": lambda site: re.sub(r"expires=\d+", f"expires={2**40}", site.link()),
    "by another secret": lambda site: site.link(secret=SECRET[::-1]),
    "signature cut": lambda site: site.link()[:-1],
    "signature longer": lambda site: site.link() + "A",
    "signature with another end": lambda site: site.link()[:-3] + "AAA",
    "signature padded": lambda site: site.link() + "=",
    "no signature": changed("signature", ""),
    "signature not ASCII": changed("signature", "%C3%A9"),
    "no user": lambda site: re.sub(r"&user=\d+", "", site.link()),
    "no end": lambda site: re.sub(r"&expires=\d+", "", site.link()),
    "user by name": changed("user", "ann"),
    "user below zero": changed("user", "-1"),
    "endless user": changed("user", "9" * 5_000),
    "end that is no number": changed("expires", "never"),
    "end in infinity": changed("expires", "inf"),
}


@pytest.mark.parametrize("make", BAD.values(), ids=BAD)
def test_any_other_link_is_refused(site, make):
    site.root.asked.clear()
    answer = site.anybody.send("GET", make(site))

    assert verdict(answer) == (403, "forbidden")
    assert CORP not in answer.headers
    assert site.root.asked == []


@pytest.mark.parametrize("name", ["user", "expires", "signature", "fileuri"])
def test_nothing_may_stand_twice(site, name):
    link = site.link()
    value = re.search(rf"{name}=([^&]*)", link)[1]

    assert verdict(site.anybody.send("GET", f"{link}&{name}={value}")) == (400, "bad_request")


def test_a_link_without_a_signature_is_none(site):
    link = re.sub("&signature=.*", "", site.link())

    assert verdict(site.anybody.send("GET", link)) == (401, "unauthenticated")


LOST: Mapping[str, Callable[[Any, Site, Somebody], object]] = {
    "leaves the project": lambda c, site, user: users.leave(c, user.id, site.cats),
    "is kept out": lambda c, site, user: users.set_active(c, user.id, active=False),
    "is removed": lambda c, site, user: users.remove(c, user.id),
}


@pytest.mark.parametrize("lose", LOST.values(), ids=LOST)
def test_a_link_ends_when_its_user(site, lose):
    user = somebody(site.catalog, f"{time.time_ns()}@example.org", site.cats)
    link = site.link(user_id=user.id)
    assert site.anybody.send("GET", link).status == 200
    with site.catalog.begin() as connection:
        lose(connection, site, user)

    site.root.asked.clear()
    answer = site.anybody.send("GET", link)
    missing = site.anybody.send("GET", site.link(user_id=user.id, number=10**6))
    assert verdict(answer) == (404, "not_found")
    assert told(answer) == told(missing)
    assert site.root.asked == []


def test_who_is_logged_in_counts_before_a_link(site):
    """Links are for those who have no session here; a token that is sent is meant."""
    stranger = somebody(site.catalog, f"{time.time_ns()}@example.org")

    assert site.running.as_user(stranger.secret).send("GET", site.link()).status == 404
    assert site.running.as_user("x").send("GET", site.link()).status == 401
    ended = {"Cookie": "labelport_session=ended"}
    assert site.anybody.send("GET", site.link(), ended).status == 200


# Who may embed an answer, and whose scripts may read it.


@pytest.mark.parametrize("query", ["", "&user=1&expires=9999999999&signature=x"])
def test_only_a_link_lets_other_sites_embed(site, query):
    """A link that somebody else wrote below an object must not open it with a user's session."""
    target = proxy_url("", "tasks", site.task_id, URI) + query
    session = site.running.as_user(site.ann.secret).send("POST", "/session")
    cookie = {"Cookie": session.headers["set-cookie"].partition(";")[0]}

    for answer in (
        site.anybody.send("GET", target, cookie),
        site.running.as_user(site.ann.secret).send("GET", target),
    ):
        assert answer.status == 200
        assert answer.headers[CORP] == "same-origin"


def test_named_origins_open_objects_to_their_own_site_at_most(open_site):
    """The cookie goes no further; scripts of other sites come by CORS, which asks for no policy."""
    answer = open_site.running.as_user(open_site.ann.secret).get("tasks", open_site.task_id, URI)
    assert answer.headers[CORP] == "same-site"

    assert open_site.anybody.send("GET", open_site.link()).headers[CORP] == "cross-origin"


ORIGINS = {
    "another": "https://evil.example",
    "none": "null",
    "any": "*",
    "other scheme": "http://app.example.org",
    "other port": "https://app.example.org:8443",
    "longer": "https://app.example.org.evil.example",
    "subdomain": "https://x.app.example.org",
    "capitals": "https://APP.example.org",
    "two": f"{TRUSTED}, https://evil.example",
    "with a path": f"{TRUSTED}/",
}


def cors_of(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.startswith("access-control-")}


def test_scripts_of_a_named_origin_may_read_objects(open_site):
    client = open_site.running.as_user(open_site.ann.secret)
    answer = client.get("tasks", open_site.task_id, URI, {"Origin": TRUSTED, "Range": "bytes=0-1"})
    cors = cors_of(answer.headers)

    assert answer.status == 206
    assert cors["access-control-allow-origin"] == TRUSTED
    assert cors["access-control-allow-credentials"] == "true"
    assert {"content-range", "accept-ranges", "etag"} <= set(
        cors["access-control-expose-headers"].split(", ")
    )
    assert "Origin" in answer.headers["vary"].split(", ")


@pytest.mark.parametrize("origin", ORIGINS.values(), ids=ORIGINS)
def test_scripts_of_other_origins_may_not(open_site, origin):
    client = open_site.running.as_user(open_site.ann.secret)
    answer = client.get("tasks", open_site.task_id, URI, {"Origin": origin})

    assert answer.status == 200
    assert cors_of(answer.headers) == {}
    assert "Origin" in answer.headers["vary"].split(", ")


def test_unless_origins_are_named_no_script_of_another_may_read(site):
    for headers in ({"Origin": TRUSTED}, {"Origin": site.running.url}, {}):
        answer = site.running.as_user(site.ann.secret).get("tasks", site.task_id, URI, headers)

        assert answer.status == 200
        assert cors_of(answer.headers) == {}


def test_a_link_lets_pages_embed_and_not_read(site):
    answer = site.anybody.send("GET", site.link(), {"Origin": "https://anywhere.example"})

    assert answer.status == 200
    assert cors_of(answer.headers) == {}


def preflight(site: Site, origin: str, path: str = "") -> Mapping[str, str]:
    headers = {
        **{"Origin": origin, "Access-Control-Request-Method": "GET"},
        **{"Access-Control-Request-Headers": "authorization,range"},
    }
    target = path or proxy_url("", "tasks", site.task_id, URI)
    answer = site.anybody.send("OPTIONS", target, headers)

    assert answer.status == 204
    assert answer.body == b""
    return answer.headers


def test_a_named_origin_may_ask_before(open_site):
    open_site.root.asked.clear()
    cors = cors_of(preflight(open_site, TRUSTED))

    assert cors["access-control-allow-origin"] == TRUSTED
    assert cors["access-control-allow-credentials"] == "true"
    assert cors["access-control-allow-methods"] == "GET, HEAD, POST, DELETE"
    assert {"authorization", "range"} <= set(cors["access-control-allow-headers"].split(", "))
    assert open_site.root.asked == []


@pytest.mark.parametrize("origin", ORIGINS.values(), ids=ORIGINS)
def test_other_origins_are_told_nothing(open_site, origin):
    headers = preflight(open_site, origin)

    assert cors_of(headers) == {}
    assert headers["vary"] == "Origin"


def test_what_may_be_asked_before_does_not_tell_what_exists(open_site):
    there, not_there = (
        preflight(open_site, TRUSTED, f"/tasks/{number}/resolve/?fileuri={URI}")
        for number in (open_site.task_id, 10**6)
    )

    assert cors_of(there) == cors_of(not_there)


def test_scripts_of_a_named_origin_may_log_in(open_site):
    """For an application on another host of the same site."""
    allowed = cors_of(preflight(open_site, TRUSTED, "/session"))
    answer = open_site.running.as_user(open_site.ann.secret).send(
        "POST", "/session", {"Origin": TRUSTED}
    )

    assert "POST" in allowed["access-control-allow-methods"]
    assert answer.status == 201
    assert cors_of(answer.headers)["access-control-allow-origin"] == TRUSTED


@pytest.mark.parametrize("path", ["/webhooks/annotations", "/metrics", "/readyz", "/openapi.json"])
def test_other_endpoints_are_for_no_script_of_another_origin(open_site, path):
    headers = {"Origin": TRUSTED, "Access-Control-Request-Method": "POST"}
    for method in ("OPTIONS", "GET", "POST"):
        assert cors_of(open_site.anybody.send(method, path, headers).headers) == {}
