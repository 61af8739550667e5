"""The OpenAPI document and the proxy agree, whatever is asked, by anybody."""

from __future__ import annotations

import json
from urllib.parse import parse_qs, urlsplit

import pytest
import schemathesis
from hypothesis import settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from conftest import OpenPlace, Place, Site
from labelport.model import Role
from labelport.resolving import proxy_url
from labelport_proxy.openapi import DOCUMENT

SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
#: What a schema cannot say: which texts are URIs of objects, and which of them a caller may have.
EXCLUDED = [positive_data_acceptance]
EXAMPLES = settings(max_examples=10, derandomize=True, deadline=None, database=None)


@pytest.fixture(scope="module")
def place(open_place: OpenPlace) -> Place:
    made = open_place("local")
    made.put("cat.jpg", bytes(5000))
    return made


@pytest.fixture(scope="module")
def manager(place: Place, small_site: Site) -> dict[str, str]:
    return small_site.member(place.storage.project_id, role=Role.MANAGER).headers


def test_the_document_is_served_and_valid(place: Place) -> None:
    answer = place.client.send("GET", "/openapi.json")
    served = json.loads(answer.body)

    assert served == DOCUMENT
    schemathesis.openapi.from_dict(served).validate()


# Whoever logs in by a header needs no body, and none is looked at.
@SCHEMA.exclude(path="/session", method="POST").parametrize()
@EXAMPLES
def test_a_manager_is_answered_as_documented(
    case: schemathesis.Case, small_site: Site, manager: dict[str, str]
) -> None:
    case.call_and_validate(
        base_url=small_site.running.url, headers=manager, excluded_checks=EXCLUDED
    )


@SCHEMA.parametrize()
@EXAMPLES
def test_a_stranger_is_answered_as_documented(case: schemathesis.Case, small_site: Site) -> None:
    case.call_and_validate(base_url=small_site.running.url, excluded_checks=EXCLUDED)


@SCHEMA.include(path_regex="projects/.*/resolve").parametrize()
@EXAMPLES
def test_an_object_is_answered_as_documented(
    case: schemathesis.Case, place: Place, manager: dict[str, str]
) -> None:
    """With whatever headers the object is asked for."""
    uri = place.storage.uri("cat.jpg")
    url = proxy_url("", "projects", place.storage.project_id, uri)
    case.path_parameters["number"] = place.storage.project_id
    case.query = {"fileuri": parse_qs(urlsplit(url).query)["fileuri"][0]}
    case.call_and_validate(base_url=place.client.url, headers=manager, excluded_checks=EXCLUDED)
