"""``labelport tasks show`` with URLs of the storage proxy."""

from __future__ import annotations

import json
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from catalogs import any_storage, import_tasks
from labelport.catalog import Catalog, schema, users
from labelport.cli import main
from labelport.links import verify
from labelport.resolving import decode_fileuri, proxy_path, proxy_url

BASE = "https://media.example.org"
SECRET = "s" * 32
DATA = {"image": "s3://photos/2024/a.jpg", "html": "<img src='s3://videos/b.jpg'>", "n": 1.5}


@pytest.fixture
def catalog(sqlite_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A catalog where the command line looks for it."""
    path = tmp_path / "catalog.db"
    path.write_bytes(sqlite_template.read_bytes())
    monkeypatch.setenv("LABELPORT_CATALOG_URL", f"sqlite:///{path}")
    with Catalog() as catalog:
        yield catalog


@pytest.fixture
def task(catalog) -> str:
    """A task of the storage "photos" that holds `DATA`; a copy of that storage is older."""
    with catalog.begin() as connection:
        any_storage(connection, "copy", location="s3://photos/2024")
        photos = any_storage(connection, allow_overlap=True)
        (task_id,) = import_tasks(connection, photos, ["2024/a.json"])
        connection.execute(schema.tasks.update().values(data=json.dumps(DATA)))
    return str(task_id)


@pytest.fixture
def ann(catalog) -> int:
    """The id of an active user."""
    with catalog.begin() as connection:
        return users.add(connection, "ann@example.org").id


def test_data_have_proxy_urls_and_the_rest_is_told(task, capsys):
    assert main(["tasks", "show", task, "--proxy-url", BASE, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)

    url = proxy_url(BASE, "tasks", int(task), DATA["image"])
    assert shown["data"] == DATA | {"image": url}
    assert shown["unresolved"] == ["s3://videos/b.jpg"]
    assert shown["ambiguous"] == [{"uri": DATA["image"], "storages": ["photos", "copy"]}]


def test_people_are_told_in_sentences(task, capsys):
    assert main(["tasks", "show", task, "--proxy-url", BASE]) == 0
    out = capsys.readouterr().out

    assert proxy_url(BASE, "tasks", int(task), DATA["image"]) in out
    assert "no storage of the project answers for s3://videos/b.jpg: add one" in out
    assert "photos answers for s3://photos/2024/a.jpg, and so could copy" in out


def test_without_a_proxy_data_are_as_they_were(task, capsys):
    assert main(["tasks", "show", task, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)

    assert shown["data"] == DATA
    assert "unresolved" not in shown


@pytest.mark.parametrize(("minutes", "seconds"), [([], 3_600), (["--minutes", "5"], 300)])
def test_links_are_signed_for_a_user_and_for_minutes(
    task, ann, capsys, monkeypatch, minutes, seconds
):
    monkeypatch.setenv("LABELPORT_PROXY_SECRET", SECRET)
    command = ["tasks", "show", task, "--proxy-url", BASE, "--links-for", "Ann@example.org"]
    assert main([*command, *minutes, "--json"]) == 0
    url = json.loads(capsys.readouterr().out)["data"]["image"]
    query = {name: value for name, (value,) in parse_qs(urlsplit(url).query).items()}

    assert decode_fileuri(query["fileuri"]) == DATA["image"]
    assert query["user"] == str(ann)
    expires = int(query["expires"])
    assert 0 <= time.time() + seconds - expires < 60
    signed = (SECRET, proxy_path("tasks", int(task)), DATA["image"], ann, expires)
    assert verify(*signed, query["signature"], now=time.time())


@pytest.mark.parametrize("secret", ["", "s" * 31])
def test_a_short_secret_signs_nothing_and_is_not_shown(task, ann, capsys, monkeypatch, secret):
    monkeypatch.setenv("LABELPORT_PROXY_SECRET", secret)
    command = ["tasks", "show", task, "--proxy-url", BASE, "--links-for", "ann@example.org"]

    assert main(command) == 2
    err = capsys.readouterr().err
    assert "set LABELPORT_PROXY_SECRET, at least 32 characters" in err
    assert "sss" not in err


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--links-for", "ann@example.org"], "add --proxy-url"),
        (["--proxy-url", BASE, "--minutes", "5"], "add --links-for"),
        (["--proxy-url", BASE, "--links-for", "bob@example.org"], "no user 'bob@example.org'"),
        (["--proxy-url", BASE, "--links-for", "ann@example.org"], "is not active"),
    ],
)
def test_what_cannot_be_signed_is_refused(
    task, ann, catalog, capsys, monkeypatch, options, complaint
):
    monkeypatch.setenv("LABELPORT_PROXY_SECRET", SECRET)
    with catalog.begin() as connection:
        users.set_active(connection, ann, False)

    assert main(["tasks", "show", task, *options]) == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize("url", ["media.example.org", "ftp://x", "https://", "https://x/?a=b", "["])
def test_a_proxy_url_is_a_web_address(catalog, capsys, url):
    with pytest.raises(SystemExit) as ended:
        main(["tasks", "show", "1", "--proxy-url", url])

    assert ended.value.code == 2
    assert "https://media.example.org" in capsys.readouterr().err
