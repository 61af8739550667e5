"""JWTs of an OpenID Connect issuer: only its own, only for us, only now, only of whom we know."""

from __future__ import annotations

import asyncio
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import jwt
import pytest
from cryptography.hazmat.primitives import serialization

from issuers import AUDIENCE, Key, OidcIssuer, forged, oidc_issuer
from labelport.catalog import Catalog, users
from labelport_proxy import oidc
from labelport_proxy.oidc import Issuer
from labelport_proxy.refusing import Refusal
from proxies import Client, Running, project, somebody, storage, task
from served import Root, served, verdict

URI = "file://cats/a.jpg"
LEEWAY = 60


class Site(NamedTuple):
    catalog: Catalog
    running: Running
    issuer: OidcIssuer
    task_id: int

    def ask(self, token: str) -> tuple[int, str]:
        client = Client(self.running.url, {"Authorization": f"Bearer {token}"})
        return verdict(client.get("tasks", self.task_id, URI))


@pytest.fixture(scope="module")
def rsa_key() -> Key:
    return Key("rsa", "RS256")


@pytest.fixture(scope="module")
def ec_key() -> Key:
    return Key("ec", "ES256")


@pytest.fixture(scope="module")
def other_key() -> Key:
    return Key("rsa", "RS256")


@contextmanager
def trusting(
    keys: Sequence[Key], template: Path, root: Root, **changes: float
) -> Iterator[tuple[OidcIssuer, Catalog, Running]]:
    """An issuer with these *keys*, and a proxy that takes its word."""
    with oidc_issuer(*keys) as issuer:
        place: dict[str, Any] = {"oidc_issuer": issuer.url, "oidc_audience": AUDIENCE}
        with served(template, root.path, root, **place, **changes) as (catalog, running):
            yield issuer, catalog, running


@pytest.fixture(scope="module")
def site(
    rsa_key: Key, ec_key: Key, sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("oidc")
    root = Root(folder)
    root.put("cats", "a.jpg")
    keys, leeway = [rsa_key, ec_key], float(LEEWAY)
    with trusting(keys, sqlite_template, root, oidc_leeway=leeway) as (issuer, catalog, running):
        cats = project(catalog, "cats")
        storage(catalog, cats, "photos", "file://cats")
        somebody(catalog, "ann@example.org", cats)
        off = somebody(catalog, "off@example.org", cats)
        with catalog.begin() as connection:
            users.set_active(connection, off.id, active=False)
        somebody(catalog, "stranger@example.org")
        yield Site(catalog, running, issuer, task(catalog, cats, {"image": URI}))


GOOD: Mapping[str, Callable[[OidcIssuer], str]] = {
    "RS256": lambda issuer: issuer.keys[0].sign(issuer.claims()),
    "ES256": lambda issuer: issuer.keys[1].sign(issuer.claims()),
    "several audiences": lambda issuer: issuer.token(aud=["other", AUDIENCE]),
    "address in capitals": lambda issuer: issuer.token(email="Ann@Example.ORG"),
    "nothing of verification": lambda issuer: issuer.token(email_verified=None),
    "expired within the leeway": lambda issuer: issuer.token(exp=int(time.time()) - LEEWAY + 20),
    "begins within the leeway": lambda issuer: issuer.token(nbf=int(time.time()) + LEEWAY - 20),
}


@pytest.mark.parametrize("make", GOOD.values(), ids=GOOD)
def test_a_token_of_the_issuer_is_its_users(site, make):
    assert site.ask(make(site.issuer)) == (200, "")


def pem(key: Key) -> bytes:
    public: bytes = key.private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return public


def by_public_key(issuer: OidcIssuer) -> str:
    """Signed with what everybody knows, as if it were a shared secret."""
    unsigned = forged({"alg": "HS256", "typ": "JWT", "kid": "rsa"}, issuer.claims())[:-1]
    signature = hmac.digest(pem(issuer.keys[0]), unsigned.encode(), "sha256")
    parts = forged({}, {}, signature).rpartition(".")
    return f"{unsigned}.{parts[2]}"


def tampered(issuer: OidcIssuer) -> str:
    head, _, signature = issuer.token(email="stranger@example.org").split(".")
    claims = forged({}, issuer.claims()).split(".")[1]
    return f"{head}.{claims}.{signature}"


def past() -> int:
    return int(time.time()) - LEEWAY - 20


BAD: Mapping[str, Callable[[OidcIssuer], str]] = {
    "other audience": lambda issuer: issuer.token(aud="other"),
    "no audience": lambda issuer: issuer.token(aud=None),
    "other issuer": lambda issuer: issuer.token(iss="https://evil.example"),
    "issuer with a slash": lambda issuer: issuer.token(iss=issuer.url + "/"),
    "no issuer": lambda issuer: issuer.token(iss=None),
    "expired": lambda issuer: issuer.token(exp=past()),
    "without end": lambda issuer: issuer.token(exp=None),
    "an end that is no number": lambda issuer: issuer.token(exp="tomorrow"),
    "not yet": lambda issuer: issuer.token(nbf=int(time.time()) + LEEWAY + 20),
    "unsigned": lambda issuer: forged({"alg": "none", "kid": "rsa"}, issuer.claims()),
    "unsigned, in capitals": lambda issuer: forged({"alg": "NONE", "kid": "rsa"}, issuer.claims()),
    "no signature": lambda issuer: forged({"alg": "RS256", "kid": "rsa"}, issuer.claims()),
    "an algorithm that is a list": lambda issuer: forged({"alg": [], "kid": "rsa"}, {}),
    "signed with the public key": by_public_key,
    "other claims under its signature": tampered,
    "the key of another kind": lambda issuer: issuer.keys[1].sign(issuer.claims(), kid="rsa"),
    "a key of its own": lambda issuer: issuer.keys[0].sign(
        issuer.claims(), kid="mine", jwk=issuer.keys[0].published
    ),
    "keys elsewhere": lambda issuer: issuer.keys[0].sign(
        issuer.claims(), kid="mine", jku="http://127.0.0.1:1/keys"
    ),
    "no key named": lambda issuer: jwt.encode(
        issuer.claims(), issuer.keys[0].private, algorithm="RS256"
    ),
    "a key that is a number": lambda issuer: forged({"alg": "RS256", "kid": 1}, issuer.claims()),
    "address not verified": lambda issuer: issuer.token(email_verified=False),
    "address said to be not verified": lambda issuer: issuer.token(email_verified="false"),
    "no address": lambda issuer: issuer.token(email=None),
    "an address that is a list": lambda issuer: issuer.token(email=["ann@example.org"]),
    "an unknown user": lambda issuer: issuer.token(email="nobody@example.org"),
    "an inactive user": lambda issuer: issuer.token(email="off@example.org"),
    "nothing in it": lambda issuer: "..",
    "garbage": lambda issuer: "a.b.c",
    "letters": lambda issuer: "\xe9.\xe9.\xe9",
    "too long": lambda issuer: issuer.token(more="x" * 20_000),
    "a deep header": lambda issuer: "W1tb" * 3_000 + ".e30.e30",
}


@pytest.mark.parametrize("make", BAD.values(), ids=BAD)
def test_any_other_token_is_nobodys(site, make):
    assert site.ask(make(site.issuer)) == (401, "unauthenticated")


def test_who_may_see_nothing_is_somebody_nevertheless(site):
    assert site.ask(site.issuer.token(email="stranger@example.org")) == (404, "not_found")


def test_a_token_of_ours_is_no_jwt(site):
    member = somebody(site.catalog, "scripts@example.org")

    assert site.ask(member.secret) == (404, "not_found")


def test_a_jwt_may_begin_a_session(site):
    answer = site.running.as_user(site.issuer.token()).send("POST", "/session")
    cookie = answer.headers["set-cookie"].partition(";")[0]

    assert answer.status == 201
    client = Client(site.running.url, {"Cookie": cookie})
    assert client.get("tasks", site.task_id, URI).status == 200


def test_a_session_ends_with_the_jwt_it_was_begun_with(site):
    ends = int(time.time()) + 300
    answer = site.running.as_user(site.issuer.token(exp=ends)).send("POST", "/session")
    expires_at = datetime.fromisoformat(json.loads(answer.body)["expires_at"])

    assert abs(expires_at.timestamp() - ends) < 1
    past_its_end = site.issuer.token(exp=int(time.time()) - LEEWAY + 20)
    assert site.ask(past_its_end) == (200, "")
    assert site.running.as_user(past_its_end).send("POST", "/session").status == 401


def test_a_jwt_whose_user_is_removed_begins_no_session(rsa_key, sqlite_template, tmp_path):
    with trusting([rsa_key], sqlite_template, Root(tmp_path), access_seconds=60.0) as (
        issuer,
        catalog,
        running,
    ):
        ann = somebody(catalog, "ann@example.org")
        client = running.as_user(issuer.token())
        assert client.get("tasks", 1, URI).status == 404
        with catalog.begin() as connection:
            users.remove(connection, ann.id)

        assert client.get("tasks", 1, URI).status == 404
        assert verdict(client.send("POST", "/session")) == (401, "unauthenticated")


def test_what_is_remembered_of_a_token_ends_with_it(rsa_key, sqlite_template, tmp_path):
    """However long decisions on access are remembered."""
    changes = {"access_seconds": 60.0, "oidc_leeway": 0.0}
    with trusting([rsa_key], sqlite_template, Root(tmp_path), **changes) as (
        issuer,
        catalog,
        running,
    ):
        somebody(catalog, "ann@example.org")
        ends = int(time.time()) + 2
        client = running.as_user(issuer.token(exp=ends))

        assert client.get("tasks", 1, URI).status == 404
        while time.time() < ends:
            assert client.get("tasks", 1, URI).status in (404, 401)
        assert client.get("tasks", 1, URI).status == 401


# Keys come and go. A clock of our own shows what happens in an hour.


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Verifying:
    """Asks an `Issuer` with keys that it fetches itself, and a clock that can be moved."""

    def __init__(self, issuer: OidcIssuer, **changes: Any) -> None:
        self.clock = Clock()
        given = {"jwks_url": "", "email_claim": "email", "leeway": 60.0, **changes}
        self._verifier = Issuer(issuer.url, AUDIENCE, clock=self.clock, **given)
        self._loop = asyncio.Runner()

    def ask(self, token: str) -> int:
        """What the proxy would answer."""
        try:
            self._loop.run(self._verifier.verified(token))
        except Refusal as refusal:
            return refusal.status
        return 200

    def ask_at_once(self, tokens: Sequence[str]) -> list[int]:
        """What it would answer requests that come together."""

        async def all_of_them() -> list[Refusal | None]:
            asked = (self._verifier.verified(token) for token in tokens)
            return await asyncio.gather(*asked, return_exceptions=True)  # type: ignore[return-value]

        found = self._loop.run(all_of_them())
        return [each.status if isinstance(each, Refusal) else 200 for each in found]

    def close(self) -> None:
        self._loop.close()


@pytest.fixture
def issuer(rsa_key: Key) -> Iterator[OidcIssuer]:
    with oidc_issuer(rsa_key) as issuer:
        yield issuer


@pytest.fixture
def verifying(issuer: OidcIssuer) -> Iterator[Verifying]:
    verifying = Verifying(issuer)
    yield verifying
    verifying.close()


def test_keys_are_asked_for_once_an_hour(issuer, verifying):
    answers = [verifying.ask(issuer.token()) for _ in range(5)]
    assert (answers, issuer.asked) == ([200] * 5, 1)

    verifying.clock.now += 3_601
    assert verifying.ask(issuer.token()) == 200
    assert issuer.asked == 2


def test_an_unknown_key_is_asked_for_and_not_again_and_again(issuer, verifying, other_key):
    assert verifying.ask(issuer.token()) == 200
    verifying.clock.now += 60

    strange = other_key.sign(issuer.claims(), kid="strange")
    assert [verifying.ask(strange) for _ in range(5)] == [401] * 5
    assert issuer.asked == 2

    verifying.clock.now += 11
    assert verifying.ask(strange) == 401
    assert issuer.asked == 3


def test_a_new_key_is_good_as_soon_as_it_is_used(issuer, verifying, ec_key):
    assert verifying.ask(issuer.token()) == 200
    verifying.clock.now += 60
    issuer.keys.insert(0, ec_key)

    assert verifying.ask(issuer.token()) == 200
    assert verifying.ask(issuer.keys[1].sign(issuer.claims())) == 200


def test_a_key_that_is_withdrawn_is_no_good_within_the_hour(issuer, verifying, ec_key):
    old = issuer.keys[0].sign(issuer.claims(exp=int(time.time()) + 7_200))
    assert verifying.ask(old) == 200
    issuer.keys[:] = [ec_key]

    verifying.clock.now += 3_601
    assert verifying.ask(old) == 401
    assert verifying.ask(issuer.token()) == 200


def test_another_key_of_the_same_name_replaces_it(issuer, verifying, other_key):
    assert verifying.ask(other_key.sign(issuer.claims())) == 401
    issuer.keys[:] = [other_key]

    verifying.clock.now += 3_601
    assert verifying.ask(issuer.token()) == 200


def test_a_token_without_a_key_id_is_of_the_only_key(issuer, verifying):
    token = jwt.encode(issuer.claims(), issuer.keys[0].private, algorithm="RS256")

    assert verifying.ask(token) == 200


def test_while_the_issuer_is_silent_nobody_is_told_that_a_token_is_bad(issuer, verifying):
    """Not by the first request, which asks for the keys, nor by those that soon follow."""
    issuer.works = False
    assert [verifying.ask(issuer.token()) for _ in range(3)] == [503] * 3

    issuer.works = True
    verifying.clock.now += 11
    assert verifying.ask(issuer.token()) == 200


def test_keys_that_are_known_stay_good_while_the_issuer_is_silent(issuer, verifying, ec_key):
    assert verifying.ask(issuer.token()) == 200
    issuer.works = False

    for _ in range(3):
        verifying.clock.now += 3_601
        assert verifying.ask(issuer.token()) == 200
    assert verifying.ask(ec_key.sign(issuer.claims())) == 401


@pytest.fixture
def mute(issuer: OidcIssuer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Makes the issuer accept questions and answer none, for as long as that takes here."""
    released = threading.Event()
    monkeypatch.setattr(oidc, "_FETCH_SECONDS", 1.0)
    monkeypatch.setattr(oidc, "_PATIENCE_SECONDS", 0.2)

    def hush() -> None:
        def say_nothing(path: str) -> None:
            released.wait()

        issuer.answer = say_nothing  # type: ignore[method-assign]

    yield hush
    released.set()


def test_known_keys_let_in_while_the_issuer_does_not_answer(
    issuer, verifying, mute, other_key, caplog
):
    """Those who wait do so for the same answer, a moment only, and nobody after them."""
    assert verifying.ask(issuer.token()) == 200
    mute()
    verifying.clock.now += 3_601
    begun = time.monotonic()

    assert verifying.ask_at_once([issuer.token() for _ in range(4)]) == [200] * 4
    assert time.monotonic() - begun < 0.9  # less than the issuer may take

    strange = other_key.sign(issuer.claims(), kid="strange")
    assert verifying.ask_at_once([strange] * 4) == [401] * 4
    assert time.monotonic() - begun < 1.9  # than it may take twice
    assert caplog.messages == [f"the keys of {issuer.url} cannot be read: TimeoutError"]

    verifying.clock.now += 11
    begun = time.monotonic()
    assert verifying.ask_at_once([issuer.token() for _ in range(4)]) == [200] * 4
    assert time.monotonic() - begun < 0.2


def test_an_issuer_that_cannot_be_reached_is_silent_too(rsa_key):
    with oidc_issuer(rsa_key) as issuer:
        pass
    verifying = Verifying(issuer)

    assert verifying.ask(issuer.token()) == 503
    verifying.close()


def test_an_operator_may_say_where_the_keys_are(issuer):
    verifying = Verifying(issuer, jwks_url=f"{issuer.url}/keys")

    assert verifying.ask(issuer.token()) == 200
    verifying.close()


@pytest.mark.parametrize("path", ["/nothing", "/.well-known/openid-configuration"])
def test_what_are_no_keys_is_silence(issuer, path):
    verifying = Verifying(issuer, jwks_url=f"{issuer.url}{path}")

    assert verifying.ask(issuer.token()) == 503
    verifying.close()


def test_another_claim_may_name_the_user(issuer):
    verifying = Verifying(issuer, email_claim="upn")

    assert verifying.ask(issuer.token(upn="ann@example.org")) == 200
    assert verifying.ask(issuer.token()) == 401
    verifying.close()
