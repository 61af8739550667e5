"""The command line as people and programs use it: answers, exit statuses, complaints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from catalogs import any_storage, import_tasks
from labelport.catalog import Catalog, runs
from labelport.cli import main

COMMAND = [sys.executable, "-W", "error", "-m", "labelport.cli"]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that holds the buckets; ``photos/2024`` has two good objects and a bad one."""
    folder = tmp_path / "root/photos/2024"
    folder.mkdir(parents=True)
    for name in ("a", "b"):
        (folder / f"{name}.json").write_text(json.dumps({"data": {"image": f"s3://x/{name}.jpg"}}))
    (folder / "broken.json").write_text("{")
    monkeypatch.setenv("LABELPORT_LOCAL_ROOT", str(tmp_path / "root"))
    return folder


@pytest.fixture
def catalog(sqlite_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A catalog where the command line looks for it; `tests/test_catalog_*` try both databases."""
    path = tmp_path / "catalog.db"
    path.write_bytes(sqlite_template.read_bytes())
    monkeypatch.setenv("LABELPORT_CATALOG_URL", f"sqlite:///{path}")
    with Catalog() as catalog:
        yield catalog


@pytest.fixture
def photos(catalog, root) -> None:
    """A storage on the folder, of a project, made on the command line."""
    assert main(["projects", "add", "Cats"]) == 0
    assert main(["storages", "add", "photos", "file://photos/2024", "--project", "Cats"]) == 0


@pytest.fixture
def answer(capsys):
    """Run a command with ``--json``; its exit status and what it answered."""

    def run(*arguments: str):
        capsys.readouterr()
        status = main([*arguments, "--json"])
        return status, json.loads(capsys.readouterr().out)

    return run


def test_a_new_catalog_is_empty_then_up_to_date(tmp_path, answer, capsys):
    url = f"sqlite:///{tmp_path / 'new.db'}"

    assert answer("db", "check", "--catalog", url) == (1, {"state": "empty"})
    assert main(["projects", "list", "--catalog", url]) == 2
    assert "run: labelport db upgrade" in capsys.readouterr().err
    upgraded = {"state": "up to date", "upgraded": True}
    assert answer("db", "upgrade", "--catalog", url) == (0, upgraded)
    assert answer("db", "upgrade", "--catalog", url) == (0, {**upgraded, "upgraded": False})
    assert answer("db", "check", "--catalog", url) == (0, {"state": "up to date"})


def test_people_are_told_how_to_upgrade(tmp_path, capsys):
    assert main(["db", "check", "--catalog", f"sqlite:///{tmp_path / 'new.db'}"]) == 1
    assert "labelport db upgrade" in capsys.readouterr().out


def test_projects_are_added_and_listed(catalog, answer):
    status, added = answer("projects", "add", "Cats & dogs", "--maximum-annotations", "3")

    assert status == 0
    assert (added["title"], added["maximum_annotations"]) == ("Cats & dogs", 3)
    assert datetime.fromisoformat(added["created_at"]).utcoffset().total_seconds() == 0
    assert answer("projects", "list") == (0, [added])


def test_a_storage_has_every_setting_it_was_given(catalog, answer):
    main(["projects", "add", "Cats"])
    status, added = answer(
        *("storages", "add", "media", "s3://photos//a?b", "--project", "Cats"),
        *("--conn-id", "aws_labels", "--regex-filter", r".*\.jpg", "--no-recursive-scan"),
        *("--use-blob-urls", "--no-presign", "--presign-seconds", "60", "--serve-any-key"),
        *("--description", "Ours"),
    )

    assert status == 0
    expected = {
        "prefix": "/a?b",
        "location": "s3://photos//a?b",
        "direction": "import",
        "conn_id": "aws_labels",
        "regex_filter": r".*\.jpg",
        "recursive_scan": False,
        "use_blob_urls": True,
        "presign": False,
        "presign_seconds": 60,
        "serve_any_key": True,
        "description": "Ours",
        "synchronizable": True,
        "status": "initialized",
        "last_sync": None,
    }
    assert {name: added[name] for name in expected} == expected
    assert answer("storages", "show", "media") == (0, added)
    assert answer("storages", "list", "--project", "Cats") == (0, [added])


def test_a_storage_is_changed(catalog, photos, answer):
    status, changed = answer("storages", "update", "photos", "--name", "pictures", "--no-presign")

    assert status == 0
    assert (changed["name"], changed["presign"], changed["recursive_scan"]) == (
        "pictures",
        False,
        True,
    )


def test_a_sync_imports_and_says_what_was_wrong(catalog, photos, answer):
    status, synced = answer("sync", "photos")

    assert status == 1
    assert (synced["status"], synced["last_sync_count"]) == ("completed_with_errors", 2)
    assert (synced["meta"]["created"], synced["meta"]["errors"]) == (2, 1)
    assert answer("storages", "show", "photos") == (0, synced)
    status, errors = answer("errors", "photos")
    assert (status, errors["next"]) == (0, None)
    assert [error["key"] for error in errors["errors"]] == ["2024/broken.json"]
    assert set(errors["errors"][0]) == {"key", "row", "row_group", "reason", "remedy"}


def test_a_sync_of_good_objects_succeeds_and_the_next_finds_nothing_new(
    catalog, photos, root, answer
):
    (root / "broken.json").unlink()

    status, synced = answer("sync", "photos", "--shards", "2", "--max-errors", "0")
    assert (status, synced["status"], synced["last_sync_count"]) == (0, "completed", 2)
    status, synced = answer("sync", "photos", "--reimport-changed")
    assert (status, synced["last_sync_count"], synced["meta"]["tasks_existed"]) == (0, 0, 2)


def test_a_sync_with_too_many_errors_fails(catalog, photos, answer):
    status, synced = answer("sync", "photos", "--max-errors", "0")

    assert (status, synced["status"]) == (1, "failed")
    assert "TooManyErrors" in synced["traceback"]


def test_people_see_the_counters_and_where_to_read_on(catalog, photos, capsys):
    assert main(["sync", "photos"]) == 1

    out = capsys.readouterr().out
    assert "the sync of photos completed with errors in" in out
    assert "labelport errors photos" in out
    assert main(["storages", "show", "photos"]) == 0
    out = capsys.readouterr().out
    for field in ("status", "last_sync", "last_sync_count", "last_sync_job", "meta.tasks_existed"):
        assert field in out
    assert main(["errors", "photos"]) == 0
    assert "2024/broken.json" in capsys.readouterr().out


def test_the_traceback_of_a_failed_sync_is_shown(catalog, photos, capsys):
    assert main(["sync", "photos", "--max-errors", "0"]) == 1
    assert "TooManyErrors" in capsys.readouterr().err

    main(["storages", "show", "photos"])
    assert "traceback:\nTooManyErrors" in capsys.readouterr().out


def test_a_storage_that_is_being_synced_is_left_alone(catalog, photos, capsys):
    with catalog.begin() as connection:
        runs.claim(connection, 1, run_id="r1", job="dag/run", lease_seconds=60)

    assert main(["sync", "photos"]) == 1
    assert "dag/run" in capsys.readouterr().err
    assert main(["storages", "remove", "photos"]) == 1
    assert main(["storages", "remove", "photos", "--force"]) == 0


def test_tasks_come_in_pages_and_one_by_one(catalog, photos, answer):
    main(["sync", "photos"])

    _, first = answer("tasks", "list", "--storage", "photos", "--limit", "1")
    _, second = answer("tasks", "list", "--project", "Cats", "--after", str(first["next"]))
    (one,), (two,) = first["tasks"], second["tasks"]
    assert second["next"] is None
    assert [one["data"], two["data"]] == [{"image": "s3://x/a.jpg"}, {"image": "s3://x/b.jpg"}]
    assert one["link"]["key"] == "2024/a.json"
    assert answer("tasks", "show", str(one["id"])) == (
        0,
        {**one, "annotations": [], "predictions": []},
    )


def test_a_task_is_shown_with_its_annotations(catalog, answer, capsys):
    with catalog.begin() as connection:
        (task_id,) = import_tasks(connection, any_storage(connection), ["a.jpg"], annotated=True)

    _, shown = answer("tasks", "show", str(task_id))
    assert [a["result"] for a in shown["annotations"]] == [[{"value": 1.1}]]
    assert [p["score"] for p in shown["predictions"]] == [0.5]
    assert main(["tasks", "show", str(task_id)]) == 0
    assert '[{"value": 1.1}]' in capsys.readouterr().out


def test_removing_says_what_became_of_the_tasks(catalog, photos, answer):
    main(["sync", "photos"])

    assert answer("storages", "remove", "photos") == (0, {"tasks_kept": 2, "tasks_deleted": 0})
    _, left = answer("tasks", "list")
    assert [task["link"] for task in left["tasks"]] == [None, None]


def test_a_check_names_what_is_missing(catalog, photos, root, answer):
    status, checks = answer("storages", "check", "photos")
    assert (status, {check["ok"] for check in checks}) == (0, {True})

    for path in root.iterdir():
        path.unlink()
    status, checks = answer("storages", "check", "photos")
    assert status == 1
    assert checks[-1]["remedy"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["storages", "show", "nothing"],
        ["storages", "add", "x", "s3://b", "--project", "Nobody"],
        ["tasks", "show", "99"],
        ["sync", "nothing"],
        ["errors", "99"],
        ["projects", "list", "--catalog", "mysql://host/db"],
        ["projects", "list", "--catalog", "sqlite:////no/such/directory/a.db"],
    ],
    ids=" ".join,
)
def test_what_is_not_there_is_a_sentence_and_no_traceback(catalog, arguments, capsys):
    assert main(arguments) == 2

    captured = capsys.readouterr()
    assert captured.err.startswith("labelport: ")
    assert captured.err.count("\n") == 1
    assert captured.out == ""


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["storages"],
        ["nonsense"],
        ["sync"],
        ["sync", "x", "--shards", "0"],
        ["sync", "x", "--max-errors", "-1"],
        ["tasks", "show", "first"],
        ["storages", "add", "x", "s3://b"],
    ],
    ids=" ".join,
)
def test_a_wrong_command_ends_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as exit:
        main(arguments)

    assert exit.value.code == 2
    assert "Usage: labelport" in capsys.readouterr().err


def test_help_documents_the_exit_status(capsys):
    with pytest.raises(SystemExit) as exit:
        main(["--help"])

    assert exit.value.code == 0
    assert "exit status:\n  0    done, and nothing failed" in capsys.readouterr().out


def test_names_and_keys_are_no_markup_and_no_terminal_commands(catalog, capsys):
    with catalog.begin() as connection:
        storage = any_storage(connection, "[red]x[/red]", location="s3://photos")
        import_tasks(connection, storage, ["\x1b[2J[/]é.jpg"])

    assert main(["storages", "list"]) == 0
    assert "[red]x[/red]" in capsys.readouterr().out
    assert main(["tasks", "list"]) == 0
    out = capsys.readouterr().out
    assert r"\x1b[2J[/]é.jpg" in out
    assert "\x1b" not in out


def test_a_table_in_a_pipe_is_not_wrapped(catalog, capsys):
    key = "k" * 900
    with catalog.begin() as connection:
        import_tasks(connection, any_storage(connection), [key])

    main(["tasks", "list"])
    assert key in capsys.readouterr().out


def test_a_program_gets_json_alone_on_standard_output(catalog, photos):
    """Also from a real process, in a locale without umlauts, with every warning an error."""
    done = subprocess.run(
        [*COMMAND, "sync", "photos", "--json"],
        capture_output=True,
        text=True,
        check=False,
        env=_environment(LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0"),
    )

    assert (done.returncode, done.stderr) == (1, "")
    assert json.loads(done.stdout)["status"] == "completed_with_errors"


@pytest.mark.parametrize("form", [[], ["--json"]], ids=["table", "json"])
def test_a_reader_that_stops_early_is_no_error(catalog, form):
    with catalog.begin() as connection:
        keys = [f"{n:0900}" for n in range(1000)]
        import_tasks(connection, any_storage(connection), keys)

    listing = subprocess.Popen(
        [*COMMAND, "tasks", "list", "--limit", "1000", *form],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    listing.stdout.read(10)
    listing.stdout.close()
    with listing.stderr:
        assert listing.stderr.read() == b""
    assert listing.wait(timeout=60) == 141


def _environment(**more: str) -> dict[str, str]:
    return {**os.environ, **more}
