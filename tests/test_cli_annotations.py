"""Annotations, exports and the ledger on the command line."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from catalogs import any_storage, import_tasks
from labelport.catalog import Catalog, schema
from labelport.catalog import annotations as saved
from labelport.cli import main
from labelport.model import AnnotationRow

RESULT = [{"value": 1.1}]


@pytest.fixture
def catalog(sqlite_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A catalog where the command line looks for it."""
    path = tmp_path / "catalog.db"
    path.write_bytes(sqlite_template.read_bytes())
    monkeypatch.setenv("LABELPORT_CATALOG_URL", f"sqlite:///{path}")
    with Catalog() as catalog:
        yield catalog


@pytest.fixture
def task_ids(catalog) -> list[int]:
    """Two tasks of the project "Cats"."""
    with catalog.begin() as connection:
        return import_tasks(connection, any_storage(connection), ["2024/a.jpg", "2024/b.jpg"])


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the bucket that exports go to."""
    folder = tmp_path / "root/labels"
    folder.mkdir(parents=True)
    monkeypatch.setenv("LABELPORT_LOCAL_ROOT", str(tmp_path / "root"))
    return folder


@pytest.fixture
def answer(capsys):
    """Run a command with ``--json``; its exit status and what it answered."""

    def run(*arguments: str):
        capsys.readouterr()
        status = main([*arguments, "--json"])
        return status, json.loads(capsys.readouterr().out)

    return run


@pytest.fixture
def bring(answer, tmp_path):
    """Import rows of annotations; the exit status and the answer."""

    def run(*rows: object, name: str = "rows.jsonl"):
        text = json.dumps(rows) if name.endswith(".json") else _lines(rows)
        (tmp_path / name).write_text(text)
        return answer("annotations", "import", str(tmp_path / name))

    return run


def _lines(rows) -> str:
    return "".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json"])
def test_rows_create_change_and_delete(task_ids, bring, answer, name):
    new = {"task": task_ids[0], "result": RESULT, "completed_by": {"id": 7}, "lead_time": 2}

    status, brought = bring(new, {**new, "was_cancelled": True}, name=name)
    assert (status, brought) == (0, {"created": 2, "updated": 0, "deleted": 0, "errors": []})
    _, listed = answer("annotations", "list", "--task", str(task_ids[0]))
    one, two = listed["annotations"]
    assert (one["result"], one["completed_by"], one["lead_time"]) == (RESULT, "7", 2.0)

    changed = {"id": one["id"], "task": task_ids[0], "completed_by": "ann@example.com"}
    _, brought = bring(changed, {"id": two["id"], "deleted": True}, name=name)
    assert (brought["updated"], brought["deleted"]) == (1, 1)
    _, shown = answer("annotations", "show", str(one["id"]))
    assert shown == {**one, "completed_by": "ann@example.com", "updated_at": shown["updated_at"]}
    _, task = answer("tasks", "show", str(task_ids[0]))
    assert (task["total_annotations"], task["cancelled_annotations"], task["is_labeled"]) == (
        *(1, 0, True),
    )


def test_null_takes_away_what_is_not_required(task_ids, bring, answer):
    bring({"task": task_ids[0], "result": RESULT, "completed_by": "ann", "lead_time": 1.5})
    bring({"id": 1, "completed_by": None})

    _, shown = answer("annotations", "show", "1")
    assert (shown["completed_by"], shown["lead_time"], shown["result"]) == (None, 1.5, RESULT)


def test_bad_rows_are_told_and_the_others_kept(task_ids, bring, answer):
    good = {"task": task_ids[0], "result": RESULT}
    bad = {
        "nothing to do": ("neither", {}),
        "no task": ("neither", {"result": RESULT}),
        "no result": ('no "result"', {"task": task_ids[0]}),
        "not a list": ("not a list", {"task": task_ids[0], "result": {"x": 1}}),
        "no such task": ("no task 99", {"task": 99, "result": RESULT}),
        "no such annotation": ("no annotation 99", {"id": 99, "was_cancelled": True}),
        "of another task": ("none of task", {"id": 1, "task": task_ids[1], "result": RESULT}),
        "an id as text": ("id", {"id": "1", "result": RESULT}),
        "an id too large": ("task", {"task": 2**70, "result": RESULT}),
        "deleted, but what": ("deleted", {"task": task_ids[0], "deleted": True}),
        "a list": ("expected object", [1]),
        "NUL": ("u0000", {**good, "completed_by": "\0"}),
        "a task": ("a task with its data", {"data": {"a": 1}, "annotations": [{"result": []}]}),
        "a broken line": ("invalid JSON", '{"task": 1, \n'),
    }

    status, brought = bring(good, *(row for _, row in bad.values()), good)
    assert (status, brought["created"], brought["updated"]) == (1, 2, 0)
    reasons = {error["row"]: error["reason"] for error in brought["errors"]}
    for row, (name, (words, _)) in enumerate(bad.items(), 1):
        if name != "nothing to do":
            assert words in reasons[row], name
    assert len(reasons) == len(bad)
    assert all(error["remedy"] for error in brought["errors"])
    assert not any('"data": {' in error["remedy"] for error in brought["errors"])


def test_people_see_what_was_left_out(task_ids, tmp_path, capsys):
    file = tmp_path / "rows.jsonl"
    file.write_text(_lines([{"task": task_ids[0], "result": RESULT}, {"task": 99, "result": []}]))

    assert main(["annotations", "import", str(file)]) == 1
    out = capsys.readouterr().out
    assert "1 created, 0 updated, 0 deleted" in out
    assert "there is no task 99" in out


def test_thousands_of_rows_are_more_than_one_transaction(catalog, task_ids, bring):
    status, brought = bring(*({"task": task_ids[n % 2], "result": []} for n in range(2_500)))

    assert (status, brought["created"]) == (0, 2_500)
    with catalog.read() as connection:
        assert len(saved.page(connection, task_id=task_ids[1], limit=9_999)) == 1_250


def test_rows_come_from_standard_input_too(task_ids, answer, monkeypatch):
    text = json.dumps([{"task": task_ids[0], "result": RESULT}]).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))

    assert answer("annotations", "import", "-")[1]["created"] == 1


def test_annotations_are_listed_in_pages_and_deleted(catalog, task_ids, answer, capsys):
    _annotate(catalog, [task_ids[0]] * 3)

    _, first = answer("annotations", "list", "--project", "Cats", "--limit", "2")
    _, rest = answer("annotations", "list", "--after", str(first["next"]))
    assert [a["id"] for a in first["annotations"] + rest["annotations"]] == [1, 2, 3]
    assert rest["next"] is None
    assert answer("annotations", "delete", "2") == (0, {"deleted": 2})
    assert main(["annotations", "delete", "2"]) == 2
    assert "labelport annotations list" in capsys.readouterr().err
    assert main(["annotations", "list"]) == 0
    assert main(["annotations", "show", "1"]) == 0
    assert '[{"value": 1.1}]' in capsys.readouterr().out


def test_a_file_that_is_not_there_is_a_sentence(task_ids, tmp_path, capsys):
    assert main(["annotations", "import", str(tmp_path / "none.json")]) == 2
    assert "none.json cannot be read: No such file" in capsys.readouterr().err


def test_an_export_storage_has_its_settings(task_ids, answer, capsys):
    _, added = answer(
        *("storages", "add", "out", "file://labels", "--project", "Cats"),
        *("--direction", "export", "--export-format", "task", "--can-delete-objects"),
        *("--key-template", "{date}/{task_id}.json", "--rows-per-file", "50"),
    )
    expected = {
        "direction": "export",
        "export_format": "task",
        "key_template": "{date}/{task_id}.json",
        "rows_per_file": 50,
        "can_delete_objects": True,
    }
    assert {name: added[name] for name in expected} == expected
    assert main(["storages", "show", "out"]) == 0
    assert "{date}/{task_id}.json" in capsys.readouterr().out

    _, changed = answer("storages", "update", "out", "--key-template", "")
    assert (changed["key_template"], changed["rows_per_file"]) == (None, 50)


@pytest.mark.parametrize("command", ["export", "sync"])
def test_annotations_are_exported_and_the_ledger_says_where(
    catalog, task_ids, bucket, answer, capsys, command
):
    _export_storage()
    _annotate(catalog, task_ids)

    status, exported = answer(command, "out", "--shards", "2")
    assert (status, exported["status"], exported["meta"]["created"]) == (0, "completed", 2)
    assert len(list(bucket.iterdir())) == 2
    _, ledger = answer("ledger", "out")
    assert [link["object_exists"] for link in ledger["links"]] == [True, True]
    assert ledger["counts"] == {"exported": 2, "failed": 0, "deleted": 0}
    _, page = answer("ledger", "out", "--limit", "1")
    assert answer("ledger", "out", "--after", str(page["next"]))[1]["links"] == ledger["links"][1:]
    assert main(["ledger", "out"]) == 0
    assert "2 exported, 0 failed, 0 deleted" in capsys.readouterr().out


def test_what_is_exported_can_be_chosen(catalog, task_ids, bucket, answer):
    _export_storage()
    _annotate(catalog, task_ids)
    answer("export", "out")
    answer("annotations", "delete", "2")
    with catalog.begin() as connection:
        saved.update(connection, 1, result="[]")
        saved.create(connection, task_ids[1], AnnotationRow("[]"))

    def written(*arguments: str) -> int:
        meta = answer("export", "out", *arguments)[1]["meta"]
        return meta["created"] + meta["updated"]

    assert [written("--new"), written("--changed"), written("--changed")] == [1, 1, 0]
    assert [written("--all"), written()] == [2, 0]


def test_people_see_what_an_export_did(catalog, task_ids, bucket, capsys):
    _export_storage()
    _annotate(catalog, task_ids)

    assert main(["export", "out"]) == 0
    out = capsys.readouterr().out
    assert "the sync of out completed in" in out
    assert "objects written" in out


def test_the_ledger_of_what_failed(catalog, task_ids, bucket, answer, capsys):
    _export_storage()
    _annotate(catalog, task_ids)
    answer("export", "out")
    failed = schema.export_links.c.annotation_id == 2
    with catalog.begin() as connection:
        connection.execute(schema.export_links.update().where(failed).values(error="busy"))

    _, ledger = answer("ledger", "out", "--failed")
    assert [link["annotation_id"] for link in ledger["links"]] == [2]
    assert ledger["counts"] == {"exported": 1, "failed": 1, "deleted": 0}
    assert main(["ledger", "out", "--failed"]) == 0
    assert "busy" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["export", "photos"], "import storage"),
        (["ledger", "photos"], "only export storages"),
        (["sync", "out", "--reimport-changed"], "of imports"),
        (["export", "nothing"], "no storage"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_the_wrong_kind_of_storage_is_a_sentence(task_ids, bucket, capsys, arguments, words):
    _export_storage()
    capsys.readouterr()

    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.err.count("\n") == 1


def _export_storage() -> None:
    added = ["storages", "add", "out", "file://labels", "--project", "Cats"]
    assert main([*added, "--direction", "export"]) == 0


def _annotate(catalog, task_ids) -> None:
    with catalog.begin() as connection:
        for task_id in task_ids:
            saved.create(connection, task_id, AnnotationRow(json.dumps(RESULT)))
