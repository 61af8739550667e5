"""What a release and a newcomer rely on."""

import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

import labelport
import labelport_proxy

ROOT = Path(__file__).parent.parent
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#([^)\s]+))?\)")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (file,) = folder.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        yield archive


def test_the_wheel_holds_both_packages_with_types_and_migrations(wheel):
    names = set(wheel.namelist())

    assert {name.partition("/")[0] for name in names if ".dist-info" not in name} == {
        "labelport",
        "labelport_proxy",
    }
    assert {"labelport/py.typed", "labelport_proxy/py.typed"} <= names
    assert "labelport/catalog/migrations/script.py.mako" in names
    assert "labelport/catalog/migrations/versions/0001_catalog.py" in names


def test_the_wheel_is_a_provider_with_a_command(wheel):
    (name,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    entry_points = wheel.read(name).decode()

    assert "[apache_airflow_provider]\nprovider_info = labelport." in entry_points
    assert "[console_scripts]\nlabelport = labelport.cli:main" in entry_points


def test_the_versions_agree():
    declared = tomllib.loads(ROOT.joinpath("pyproject.toml").read_text())["project"]["version"]

    assert labelport.__version__ == labelport_proxy.__version__ == declared
    assert version("airflow-provider-labelport") == declared
    assert f"## {declared}" in ROOT.joinpath("CHANGELOG.md").read_text()


def test_the_command_explains_itself():
    script = Path(sys.executable).with_name("labelport")
    done = subprocess.run([script, "--help"], capture_output=True, text=True, check=True)

    assert "labelport" in done.stdout
    assert "storages" in done.stdout


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_links_of_a_document_lead_somewhere(document):
    broken = [
        (target, anchor)
        for target, anchor in LINK.findall(document.read_text())
        if "://" not in target and not leads_somewhere(document.parent / target, anchor)
    ]

    assert broken == []


def leads_somewhere(target, anchor):
    return target.exists() and (not anchor or anchor in headings(target))


def headings(document):
    """The anchors of a document's headings, as code hosts make them."""
    titles = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
