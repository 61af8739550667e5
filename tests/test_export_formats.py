"""What exported objects hold, by example, and what they are called."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from labelport.catalog import Catalog, projects, storages
from labelport.errors import ConfigurationError
from labelport.formats import decoder
from labelport.formats.exported import annotation_line, digest, object_body
from labelport.formats.keys import check_template, object_key
from labelport.model import (
    Annotation,
    AnnotationRow,
    Direction,
    ExportFormat,
    ExportUnit,
    LedgerState,
    Link,
    Prediction,
    PredictionRow,
    Storage,
    Task,
    TaskRow,
)

MADE = datetime(2026, 11, 2, 23, 59, 59, 250_000, UTC)
CHANGED = datetime(2026, 11, 3, 8, 0, tzinfo=UTC)

TASK = Task(
    id=12,
    project_id=3,
    inner_id=7,
    data='{"image": "s3://cats/2024/tom.v2.jpg", "n": 1.10}',
    meta='{"batch": 7}',
    overlap=2,
    allow_skip=False,
    is_labeled=False,
    total_annotations=99,
    cancelled_annotations=99,
    total_predictions=99,
    created_at=MADE,
    updated_at=CHANGED,
    link=None,
)
ANNOTATION = Annotation(
    id=41,
    task_id=12,
    result='[{"value": {"choices": ["cat"]}, "type": "choices"}]',
    completed_by="ann@example.org",
    was_cancelled=False,
    ground_truth=True,
    lead_time=3.5,
    created_at=MADE,
    updated_at=CHANGED,
)
SKIPPED = replace(ANNOTATION, id=42, was_cancelled=True, completed_by="17", lead_time=None)
PREDICTION = Prediction(5, 12, "[]", 0.75, "v3", MADE)
LINK = Link(8, "in/tom.json", None, 0, True, "e1", 20, None)

ANNOTATION_JSON = {
    "id": 41,
    "result": [{"value": {"choices": ["cat"]}, "type": "choices"}],
    "completed_by": {"email": "ann@example.org"},
    "was_cancelled": False,
    "ground_truth": True,
    "lead_time": 3.5,
    "created_at": "2026-11-02T23:59:59.250000Z",
    "updated_at": "2026-11-03T08:00:00Z",
}
TASK_JSON = {
    "id": 12,
    "data": {"image": "s3://cats/2024/tom.v2.jpg", "n": 1.1},
    "meta": {"batch": 7},
    "created_at": "2026-11-02T23:59:59.250000Z",
    "inner_id": 7,
    "overlap": 2,
    "allow_skip": False,
    "project": 3,
}


def storage(
    export_format: ExportFormat = ExportFormat.ANNOTATION,
    key_template: str | None = None,
    prefix: str = "out",
) -> Storage:
    return Storage(
        *(1, 3, "labels", Direction.EXPORT, "s3", "labels", prefix),
        export_format=export_format,
        key_template=key_template,
    )


def unit(
    annotations: Sequence[Annotation] = (ANNOTATION,),
    predictions: Sequence[Prediction] = (),
    task: Task = TASK,
) -> ExportUnit:
    return ExportUnit(task, annotations, predictions)


def read(body: bytes, key: str = "41") -> list[TaskRow]:
    """What our own import makes of an exported body."""
    rows = decoder(key, body, complete=True, max_row_bytes=2**20)
    blocks = [*rows.feed(body), *rows.finish()]
    assert [problem for block in blocks for problem in block.problems] == []
    return [task for block in blocks for task in block.tasks]


def test_an_annotation_holds_its_task() -> None:
    body = object_body(storage(), unit())

    assert json.loads(body) == ANNOTATION_JSON | {"task": TASK_JSON, "project": 3}
    assert b'"n": 1.10' in body  # data and result are the database's own text


def test_a_task_holds_its_annotations_and_predictions() -> None:
    body = object_body(storage(ExportFormat.TASK), unit([SKIPPED, ANNOTATION], [PREDICTION]))

    skipped = ANNOTATION_JSON | {
        "id": 42,
        "was_cancelled": True,
        "completed_by": 17,
        "lead_time": None,
    }
    assert json.loads(body) == TASK_JSON | {
        "annotations": [each | {"task": 12, "project": 3} for each in (ANNOTATION_JSON, skipped)],
        "predictions": [
            {
                "id": 5,
                "result": [],
                "score": 0.75,
                "model_version": "v3",
                "created_at": "2026-11-02T23:59:59.250000Z",
                "task": 12,
                "project": 3,
            }
        ],
        "updated_at": "2026-11-03T08:00:00Z",
        "is_labeled": False,
        "total_annotations": 1,
        "cancelled_annotations": 1,
        "total_predictions": 1,
    }


def test_what_others_do_to_a_task_does_not_change_its_annotations() -> None:
    """Else each new annotation of a task would write all others anew."""
    busy = replace(TASK, is_labeled=True, total_annotations=5, updated_at=MADE, link=LINK)
    ledger = {41: LedgerState("k", "d", True, 4)}

    assert object_body(storage(), ExportUnit(busy, [ANNOTATION], (), ledger)) == object_body(
        storage(), unit()
    )


@pytest.mark.parametrize(
    ("text", "spelt"),
    [
        (None, None),
        ("ann@example.org", {"email": "ann@example.org"}),
        ("17", 17),
        ("007", "007"),
        ("²", "²"),
        ("9" * 30, "9" * 30),
        ("ann", "ann"),
    ],
)
def test_annotators_are_spelt_as_users_know_and_read_back(text: str | None, spelt: object) -> None:
    body = object_body(storage(), unit([replace(ANNOTATION, completed_by=text)]))

    assert json.loads(body)["completed_by"] == spelt
    assert read(body)[0].annotations[0].completed_by == text


def test_a_line_has_its_source_and_digest_and_no_line_break() -> None:
    task = replace(TASK, data='{\r\n"a":\n1}', link=LINK)
    source = dataclasses.replace(storage(), id=8, bucket="cats")

    line = annotation_line(unit(task=task), ANNOTATION, {8: source})

    assert line.count(b"\n") == 1
    assert line.endswith(b"}\n")
    value = json.loads(line)
    assert value["source"] == {
        "uri": "s3://cats/in/tom.json",
        "key": "in/tom.json",
        "etag": "e1",
        "row_group": None,
        "row_index": 0,
    }
    assert value["digest"] == digest(object_body(storage(), unit(task=task)))
    assert read(line, "part-1.jsonl")[0].source_task == "3/12"


def test_without_its_storage_a_source_is_known_by_key() -> None:
    line = annotation_line(unit(task=replace(TASK, link=LINK)), ANNOTATION)

    assert json.loads(line)["source"]["uri"] is None


def test_a_task_of_no_storage_has_no_source() -> None:
    assert json.loads(annotation_line(unit(), ANNOTATION))["source"] is None


texts = st.text().filter(lambda text: "\0" not in text)
scalars = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(texts | st.sampled_from(["data", "result", "task"]), values, min_size=1)
moments = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))
annotators = st.none() | st.text(min_size=1).filter(lambda text: "\0" not in text)
annotation_values = st.builds(
    Annotation,
    id=st.integers(1, 2**53),
    task_id=st.just(12),
    result=st.lists(values, max_size=3).map(json.dumps),
    completed_by=annotators,
    was_cancelled=st.booleans(),
    ground_truth=st.booleans(),
    lead_time=st.none() | st.floats(0, 1e9),
    created_at=moments,
    updated_at=moments,
)
tasks = st.builds(
    lambda data, meta, skip: replace(TASK, data=data, meta=meta, allow_skip=skip),
    objects.map(json.dumps),
    st.none() | objects.map(json.dumps),
    st.booleans(),
)
predictions = st.builds(
    lambda score, version: replace(PREDICTION, score=score, model_version=version),
    st.none() | st.floats(0, 1),
    st.none() | texts,
)


def row_of(annotation: Annotation) -> AnnotationRow:
    return AnnotationRow(*(getattr(annotation, name) for name in AnnotationRow._fields))


@given(tasks, annotation_values)
def test_an_exported_annotation_reads_back(task: Task, annotation: Annotation) -> None:
    expected = TaskRow(
        *(0, task.data, [row_of(annotation)], (), task.allow_skip, task.meta, -1, "3/12")
    )

    body = object_body(storage(), unit([annotation], task=task))
    line = annotation_line(unit([annotation], task=task), annotation)

    assert read(body) == read(line, "a.jsonl") == read(line[:-1]) == [expected]


@given(
    tasks, st.lists(annotation_values, min_size=1, max_size=3), st.lists(predictions, max_size=2)
)
def test_an_exported_task_reads_back(
    task: Task, annotations: list[Annotation], predicted: list[Prediction]
) -> None:
    body = object_body(storage(ExportFormat.TASK), unit(annotations, predicted, task))

    ordered = sorted(annotations, key=lambda each: each.id)
    (row,) = read(body, "12.json")
    assert row == TaskRow(
        *(0, task.data, [row_of(each) for each in ordered]),
        [PredictionRow(p.result, p.score, p.model_version) for p in predicted] or (),
        *(task.allow_skip, task.meta),
    )


NO_ANNOTATIONS: list[dict[str, Any]] = [
    {"task": "classify", "result": "cat"},
    {"task": {"id": 1}, "result": []},
    {"task": 4, "result": []},
    {"task": {"data": {"a": 1}}},
]


@pytest.mark.parametrize("row", NO_ANNOTATIONS)
def test_a_row_that_only_resembles_an_annotation_is_data(row: dict[str, Any]) -> None:
    (task,) = read(json.dumps(row).encode())

    assert json.loads(task.data) == row
    assert (task.annotations, task.source_task) == ((), None)


@pytest.mark.parametrize(
    "nested",
    [
        {"id": 5},
        {"project": 5},
        {"id": "5", "project": 1},
        {"id": -5, "project": 1},
        {"id": 2**70, "project": 1},
    ],
)
def test_a_task_that_no_ids_name_is_not_shared(nested: dict[str, Any]) -> None:
    body = json.dumps({"result": [], "task": {"data": {"a": 1}} | nested}).encode()

    (task,) = read(body)

    assert (task.source_task, len(task.annotations)) == (None, 1)


def test_default_keys_are_ids() -> None:
    assert object_key(storage(), unit()) == "out/41"
    assert object_key(storage(ExportFormat.TASK), unit()) == "out/12.json"
    assert object_key(storage(prefix=""), unit()) == "41"


@pytest.mark.parametrize(
    ("template", "key"),
    [
        (
            "{project}/{date}/{source_stem}.{annotator}.json",
            "3/2026-11-02/tom.v2.ann@example.org.json",
        ),
        ("{annotation_id}-{task_id}-{inner_id}", "41-12-7"),
        ("{{{task_id}}}", "{12}"),
    ],
)
def test_a_template_names_the_object(template: str, key: str) -> None:
    assert object_key(storage(key_template=template), unit()) == f"out/{key}"


@pytest.mark.parametrize(
    ("link", "data", "stem"),
    [
        (LINK, "{}", "tom"),
        (replace(LINK, key="a/b.tar.gz"), "{}", "b.tar"),
        (replace(LINK, key="a/.hidden"), "{}", ".hidden"),
        (None, '{"n": 1, "deep": [{"u": "gs://b/x/y.png"}], "z": "s3://b/z.png"}', "y"),
        (None, '{"text": "see s3://b/k"}', "task-12"),
        (None, '{"u": "s3://bucket-alone"}', "task-12"),
        (None, '{"u": "s3://b/x/..%2f..\\u0000\\n/"}', "..%2f."),
        (None, '{"u": "s3://b/a/.."}', "_"),
        (None, '{"u": "\\ud800"}', "task-12"),
    ],
)
def test_the_stem_is_of_the_source_or_of_the_data(link: Link | None, data: str, stem: str) -> None:
    task = replace(TASK, link=link, data=data)

    key = object_key(storage(key_template="{source_stem}"), unit(task=task))

    assert key == f"out/{stem}"


@pytest.mark.parametrize("name", ["..", ".", "../../etc", "a/b", "a\\b", "\n", "\x85", "x" * 5000])
def test_a_field_never_leaves_its_segment(name: str) -> None:
    unsafe = unit([replace(ANNOTATION, completed_by=name)])

    key = object_key(storage(key_template="{task_id}/{annotator}/a"), unsafe)

    out, task, segment, last = key.split("/")
    assert (out, task, last) == ("out", "12", "a")
    assert segment not in ("", ".", "..")
    assert segment.isprintable() and "\\" not in segment
    assert len(segment.encode()) <= 255


def test_long_names_stay_apart() -> None:
    keys = {
        object_key(
            storage(key_template="{task_id}.{annotator}"),
            unit([replace(ANNOTATION, completed_by="é" * 500 + end)]),
        )
        for end in "ab"
    }

    assert len(keys) == 2


REFUSED = [
    ("", "annotation", "is empty"),
    ("  ", "annotation", "is empty"),
    ("{nobody}.json", "annotation", "choose from {project}, {date}"),
    ("{}.json", "annotation", "no field {}"),
    ("{task_id.real}", "annotation", "no field {task_id.real}"),
    ("{task_id:>9}", "annotation", "without a format"),
    ("{task_id!r}", "annotation", "without a format"),
    ("{task_id", "annotation", "write a brace itself"),
    ("a}{task_id}", "annotation", "write a brace itself"),
    ("/{task_id}", "annotation", "begins or ends with /"),
    ("{task_id}/", "annotation", "begins or ends with /"),
    ("a//{task_id}", "annotation", "begins or ends with /"),
    ("../{task_id}", "annotation", "leads outside"),
    ("a/./{task_id}", "annotation", "leads outside"),
    ("a\\{task_id}", "annotation", "backslash"),
    ("a\n{task_id}", "annotation", "control character"),
    ("\ud800{task_id}", "annotation", "no text"),
    ("a" * 600 + "{task_id}", "annotation", "shorten it"),
    ("all.json", "annotation", "share a key; add one of {annotation_id}, {inner_id}"),
    ("{project}/{date}/{annotator}", "annotation", "share a key"),
    ("{date}", "task", "share a key; add one of {inner_id}, {source_stem}, {task_id}"),
    ("{task_id}.{annotator}", "task", "a task has no single {annotator}; use {task_id}"),
    ("{annotation_id}", "task", "a task has no single {annotation_id}"),
    ("{task_id}", "jsonl", "Leave key_template out"),
    ("{task_id}", "parquet", "Leave key_template out"),
]


@pytest.mark.parametrize(("template", "export_format", "remedy"), REFUSED)
def test_a_template_that_cannot_work_is_refused(
    template: str, export_format: str, remedy: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        check_template(template, ExportFormat(export_format))

    assert remedy in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        ({"key_template": "{nobody}"}, "choose from"),
        ({"rows_per_file": 0}, "at least one"),
        ({"export_format": "xml"}, "choose annotation, task, jsonl, parquet"),
        ({"key_template": "{task_id}", "direction": Direction.IMPORT}, "of exports"),
    ],
)
def test_a_storage_that_cannot_export_is_not_saved(
    catalog: Catalog, settings: dict[str, Any], remedy: str
) -> None:
    settings = {"direction": Direction.EXPORT} | settings
    with catalog.begin() as connection, pytest.raises(ConfigurationError, match=remedy):
        project = projects.add(connection, "Cats")
        storages.add(connection, project.id, "labels", "s3://labels/out", **settings)
