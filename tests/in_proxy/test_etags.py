"""ETags are a user's own: they change with what the user may do, and tell nothing of the object."""

from __future__ import annotations

from dataclasses import replace
from hashlib import md5

import pytest

from conftest import OpenPlace, Place, Site
from labelport.catalog import Catalog, users
from labelport.model import Role
from proxies import Client, project, proxy, somebody, storage

BODY = b"the bytes of a picture" * 10


@pytest.fixture(scope="module", params=["local", "weed"])
def place(request: pytest.FixtureRequest, open_place: OpenPlace) -> Place:
    made = open_place(request.param)
    made.put("cat.jpg", BODY)
    made.put("copy.jpg", BODY)
    return made


def etag(place: Place, client: Client | None = None, key: str = "cat.jpg") -> str:
    answer = place.get(key, client=client)
    assert answer.status == 200
    return answer.headers["etag"]


def test_an_etag_is_the_same_for_the_same_user(place: Place) -> None:
    assert etag(place) == etag(place)


def test_an_etag_is_another_for_each_object_and_user(place: Place, small_site: Site) -> None:
    """Copies have the same bytes, and nobody is told so."""
    colleague = small_site.member(place.storage.project_id)

    assert len({etag(place), etag(place, key="copy.jpg"), etag(place, colleague)}) == 3


def test_an_etag_is_another_in_each_project(place: Place, small_site: Site) -> None:
    old = place.storage
    other_id = project(small_site.catalog, f"other of {old.name}")
    more = {"serve_any_key": True, "presign": False}
    other = storage(small_site.catalog, other_id, f"other-{old.name}", old.location, **more)
    small_site.stores[other.id] = small_site.stores[old.id]
    member = small_site.member(old.project_id, other_id)

    assert etag(place, member) != etag(replace(place, storage=other), member)


def test_an_etag_is_another_once_the_role_is(place: Place, small_site: Site) -> None:
    """A browser must not go on showing what was cached under other rights."""
    project_id = place.storage.project_id
    user = somebody(small_site.catalog, f"promoted@{place.storage.name}.org", project_id)
    client = small_site.running.as_user(user.secret)
    before = etag(place, client)
    with small_site.catalog.begin() as connection:
        users.join(connection, user.id, project_id, Role.MANAGER)

    assert etag(place, client) != before
    assert place.get("cat.jpg", {"If-None-Match": before}, client).status == 200


def test_an_etag_does_not_tell_the_stores(place: Place) -> None:
    """S3's is an MD5: whoever knows it can tell which known file this is."""
    digest = md5(BODY, usedforsecurity=False).hexdigest()
    answer = place.get("cat.jpg")

    assert digest not in str(answer.headers).lower()


def test_all_processes_of_one_secret_give_the_same(place: Place, small_site: Site) -> None:
    with proxy(Catalog(small_site.url), lambda storage: small_site.stores[storage.id]()) as other:
        client = Client(other.url, place.client.headers)

        assert etag(place, client) == etag(place)
