"""Object bytes → task rows, whatever the bytes and however they are cut into chunks."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelport.errors import FormatError
from labelport.formats import RowDecoder, Rows, decoder, media_row, resume_lines
from labelport.formats.arrays import Array
from labelport.formats.elements import ElementScan
from labelport.formats.lines import Lines
from labelport.formats.seams import Seam
from labelport.model import AnnotationRow, PredictionRow, Problem, TaskRow

MAX = 10_000
BOM = b"\xef\xbb\xbf"

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text().filter(lambda text: "\0" not in text)
    | st.sampled_from(['},{"a":', '"', "\\", "}, {", "[", "]", '\\"', "\u2028", "😀"])
)
keys = st.text(min_size=1, max_size=5).filter(lambda key: "\0" not in key) | st.just("id")
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)
datas = st.dictionaries(keys, values, min_size=1, max_size=4)
rows_of_json = st.lists(
    st.builds(
        lambda data, wrapped: {"data": data} if wrapped else {"x": data}, datas, st.booleans()
    )
)


def dumps(value: object, **options: Any) -> bytes:
    return json.dumps(value, **options).encode()


def chunks(body: bytes, cuts: Iterable[int]) -> Iterator[bytes]:
    edges = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts)})
    for start, stop in pairwise(edges):
        yield body[start:stop]


def blocks(rows: RowDecoder, parts: Iterable[bytes]) -> list[Rows]:
    found = [block for part in parts for block in rows.feed(part)]
    return [*found, *rows.finish()]


def flat(found: Iterable[Rows]) -> tuple[list[TaskRow], list[Problem]]:
    found = list(found)
    return (
        [task for block in found for task in block.tasks],
        [problem for block in found for problem in block.problems],
    )


def read(body: bytes, key: str = "a.json", limit: int = MAX) -> tuple[list[TaskRow], list[Problem]]:
    rows = decoder(key, body, complete=True, max_row_bytes=limit)
    return flat(blocks(rows, [body]))


def datas_of(tasks: Iterable[TaskRow]) -> list[object]:
    return [json.loads(task.data) for task in tasks]


# What is a document


@pytest.mark.parametrize(
    ("key", "body", "expected"),
    [
        pytest.param("a.json", b'{"a": 1}', [(0, {"a": 1})], id="one object"),
        pytest.param(
            "a", b'\n {\n"a"\n:\n[{}]\n}\n', [(0, {"a": [{}]})], id="object on many lines"
        ),
        pytest.param("a.json", b'{"data": {"a": 1}}', [(0, {"a": 1})], id="wrapper"),
        pytest.param(
            "a.json", b'{"data": {"a": 1}, "id": 3, "total": 1}', [(0, {"a": 1})], id="keys"
        ),
        pytest.param("a.json", BOM + b'{"a": 1}', [(0, {"a": 1})], id="object with BOM"),
        pytest.param("a.json", BOM + b' [{"a": 1}]', [(0, {"a": 1})], id="array with BOM"),
        pytest.param("a.jsonl", BOM + b'{"a": 1}\n', [(0, {"a": 1})], id="lines with BOM"),
        pytest.param("a", b" " * 2**19 + b'[{"a": 1}]', [(0, {"a": 1})], id="blanks and an array"),
        pytest.param("a.json", b"[]", [], id="empty array"),
        pytest.param("a.json", b" [ \n ] ", [], id="empty array with blanks"),
        pytest.param(
            "a.json", b'[{"a": 1}\n,{"b": 2}]', [(0, {"a": 1}), (1, {"b": 2})], id="array"
        ),
        pytest.param(
            "a.json", b'{"a":1}\n{"b":2}', [(0, {"a": 1}), (1, {"b": 2})], id="json of lines"
        ),
        pytest.param(
            "a.json", b'{"a":1}\r\n\r\n{"b":2}\r\n', [(0, {"a": 1}), (2, {"b": 2})], id="CRLF"
        ),
        pytest.param("a.JSONL", b'\n\n{"a":1}', [(2, {"a": 1})], id="blank lines count"),
        pytest.param("a.ndjson", b'{"a":1}\n', [(0, {"a": 1})], id="ndjson"),
        pytest.param("a.jsonl", b'{\n"a":1}', [(0, {"a": 1})], id="a misnamed object"),
        pytest.param("a.jsonl", b'[\n{"a":1}]', [(0, {"a": 1})], id="a misnamed array"),
        pytest.param("a.json", b'{"data":\n{"data": 1}}', [(0, {"data": 1})], id="data in data"),
        pytest.param(
            "a.json", b'{"data": {"a": "\\\\u0000"}}', [(0, {"a": "\\u0000"})], id="no NUL"
        ),
        pytest.param(
            "a.json", b'{"h": "2e5551", "n": 1e-10}', [(0, {"h": "2e5551", "n": 1e-10})], id="hash"
        ),
        pytest.param("a.json", b'{"p": "\\ud83d\\ude00"}', [(0, {"p": "😀"})], id="surrogate pair"),
    ],
)
def test_documents(key, body, expected):
    tasks, problems = read(body, key)

    assert [(task.row, json.loads(task.data)) for task in tasks] == expected
    assert problems == []


def test_a_long_first_line_is_read_as_a_line():
    """Without a newline in the head, JSONL and a document on one line read alike."""
    body = dumps({"a": "x" * 2_000_000})
    rows = decoder("a.json", body[: 2**20], complete=False, max_row_bytes=2**22)

    tasks, problems = flat(blocks(rows, [body[: 2**20], body[2**20 :]]))

    assert [task.row for task in tasks] == [0]
    assert problems == []


# Labels


def test_annotations_and_predictions_keep_what_they_say():
    body = dumps(
        {
            "data": {"a": 1},
            "annotations": [
                {
                    "result": [{"id": "x"}],
                    "completed_by": {"id": 7, "email": "ann@example.org"},
                    "was_cancelled": True,
                    "ground_truth": True,
                    "lead_time": 2,
                    "created_at": "2026-01-01T02:00:00+02:00",
                    "updated_at": "2026-01-01T00:00:00.5",
                    "unknown": 1,
                }
            ],
            "predictions": [{"result": [], "score": 0.5, "model_version": "m", "id": 1}],
            "allow_skip": False,
            "meta": {"m": 1},
        }
    )

    (task,), problems = read(body)

    assert problems == []
    assert task.annotations == [
        AnnotationRow(
            '[{"id": "x"}]',
            "ann@example.org",
            True,
            True,
            2.0,
            datetime(2026, 1, 1, tzinfo=UTC),
            datetime(2026, 1, 1, 0, 0, 0, 500_000, UTC),
        )
    ]
    assert task.predictions == [PredictionRow("[]", 0.5, "m")]
    assert not task.allow_skip
    assert task.meta == '{"m": 1}'


@pytest.mark.parametrize(
    ("person", "expected"),
    [
        (7, "7"),
        ("ann@example.org", "ann@example.org"),
        ({"id": 7}, "7"),
        ({"email": "", "id": "x"}, "x"),
        ({}, None),
        (None, None),
    ],
)
def test_who_annotated(person, expected):
    body = dumps({"data": {"a": 1}, "annotations": [{"result": [], "completed_by": person}]})

    (task,), _ = read(body)

    assert task.annotations[0].completed_by == expected


@pytest.mark.parametrize("nothing", [{}, {"annotations": None, "meta": None, "allow_skip": None}])
def test_rows_without_labels(nothing):
    (task,), problems = read(dumps({"data": {"a": 1}, **nothing}))

    assert (list(task.annotations), list(task.predictions)) == ([], [])
    assert (task.allow_skip, task.meta, problems) == (True, None, [])


def test_completions_are_annotations():
    (task,), _ = read(b'{"data": {"a": 1}, "completions": [{"result": []}]}')

    assert task.annotations == [AnnotationRow("[]")]


# Rows that become problems

BAD_ROWS = {
    "number": (b"5", "expected object, got int"),
    "string": (b'"x"', "expected object, got str"),
    "null": (b"null", "expected object, got null"),
    "nested array": (b'[{"a": 1}]', "expected object, got array"),
    "empty object": (b"{ }", "empty"),
    "empty data": (b'{"data": {}}', "empty"),
    "data is text": (b'{"data": "s3://b/k"}', '"data" is not an object'),
    "data is null": (b'{"data": null}', '"data" is not an object'),
    "annotations alone": (b'{"annotations": []}', '"annotations" without "data"'),
    "predictions alone": (b'{"x": 1, "predictions": []}', '"predictions" without "data"'),
    "annotations is text": (
        b'{"data": {"a": 1}, "annotations": "x"}',
        "annotations: expected array",
    ),
    "annotation is text": (b'{"data": {"a": 1}, "annotations": ["x"]}', "annotations[0]: expected"),
    "no result": (b'{"data": {"a": 1}, "annotations": [{}]}', "missing required field result"),
    "result is null": (
        b'{"data": {"a": 1}, "annotations": [{"result": null}]}',
        '"result" is not a',
    ),
    "result is object": (
        b'{"data": {"a": 1}, "predictions": [{"result": {}}]}',
        '"result" is not a',
    ),
    "score is text": (
        b'{"data": {"a": 1}, "predictions": [{"result": [], "score": "1"}]}',
        "score",
    ),
    "person is bool": (
        b'{"data": {"a":1}, "annotations": [{"result": [], "completed_by": true}]}',
        "by",
    ),
    "date": (
        b'{"data": {"a":1}, "annotations": [{"result": [], "created_at": "today"}]}',
        "created_at",
    ),
    "year 0": (
        b'{"data": {"a":1},'
        b' "annotations": [{"result": [], "created_at": "0001-01-01T00:00:00+09:00"}]}',
        "no time that UTC has",
    ),
    "allow_skip": (b'{"data": {"a": 1}, "allow_skip": 1}', '"allow_skip"'),
    "meta": (b'{"data": {"a": 1}, "meta": []}', '"meta"'),
    "two names": (
        b'{"data": {"a": 1}, "annotations": [{"result": []}], "completions": [{"result": []}]}',
        "both",
    ),
    "data twice": (b'{"data": {"a": 1}, "data": {"a": 2}}', '"data" stands twice'),
    "labels twice": (
        b'{"data": {"a": 1}, "annotations": [{"result": []}], "annotations": []}',
        '"annotations" stands twice',
    ),
    "not UTF-8": (b'{"a": "\xff"}', "not UTF-8 at byte 7"),
    "surrogates as UTF-8": (b'{"a": "\xed\xa0\x80"}', "not UTF-8"),
    "NUL": (b'{"a": "x\\u0000"}', "\\u0000"),
    "NUL in a key": (b'{"a\\u0000": 1}', "\\u0000"),
    "half pair": (b'{"a": "\\ud800"}', "surrogate"),
    "half pair inside": (b'{"a": "\\udc00 and some more text"}', "surrogate"),
    "NaN": (b'{"a": NaN}', "NaN"),
    "infinity": (b'{"a": -Infinity}', "-Infinity"),
    "1e999": (b'{"a": 1e999}', "1e999"),
    "1E+0999": (b'{"a": [1, -1.5E+0999]}', "-1.5E+0999"),
    "1e-20000": (b'{"a":1e-20000}', "1e-20000"),
    "many digits": (b'{"a": ' + b"9" * 400 + b"}", "99999"),
    "many digits and e": (b'{"a": ' + b"9" * 250 + b"e99}", "99999"),
    "control character": (b'{"a": "\x01"}', "control character"),
    "depth": (b'{"a": ' + b"[" * 600 + b"]" * 600 + b"}", "nested deeper"),
    "great depth": (b'{"a":' * 1500 + b"1" + b"}" * 1500, "nested deeper"),
    "depth of labels": (
        b'{"data": {"a":1}, "annotations": [{"result": ' + b"[" * 600 + b"]" * 600 + b"}]}",
        "nested deeper",
    ),
    "too large": (b'{"a": "' + b"x" * MAX + b'"}', "larger than 10,000 bytes"),
}
bad_rows = pytest.mark.parametrize(("row", "reason"), BAD_ROWS.values(), ids=BAD_ROWS)

BROKEN_ROWS = {
    "no value": b'{"a": }',
    "single quotes": b"{'a': 1}",
    "comma": b'{"a": 1,}',
    "bare word": b'{"a": tru}',
    "two values": b'{"a": 1} {"b": 2}',
    "colon": b'{"a" 1}',
    "escape": b'{"a": "\\x"}',
    "leading zero": b'{"a": 01}',
}


@bad_rows
@pytest.mark.parametrize("step", [1_000_000, 7])
def test_a_bad_line_spares_the_others(row, reason, step):
    body = b'{"a": 1}\n' + row + b'\n{"b": 2}\n'
    rows = Lines("a.jsonl", max_row_bytes=MAX)

    tasks, problems = flat(blocks(rows, chunks(body, range(0, len(body), step))))

    assert [(task.row, json.loads(task.data)) for task in tasks] == [(0, {"a": 1}), (2, {"b": 2})]
    assert [(problem.key, problem.row) for problem in problems] == [("a.jsonl", 1)]
    assert reason in problems[0].reason
    assert len(problems[0].reason) < 120
    assert problems[0].remedy


@bad_rows
@pytest.mark.parametrize("step", [1_000_000, 7])
def test_a_bad_element_spares_the_others(row, reason, step):
    body = b'[{"a": 1}, ' + row + b', {"b": 2}]'
    rows = Array("a.json", max_row_bytes=MAX, block_bytes=5)

    tasks, problems = flat(blocks(rows, chunks(body, range(0, len(body), step))))

    assert [(task.row, json.loads(task.data)) for task in tasks] == [(0, {"a": 1}), (2, {"b": 2})]
    assert [problem.row for problem in problems] == [1]
    assert reason in problems[0].reason


@pytest.mark.parametrize(
    ("row", "reason"),
    [pytest.param(*bad, id=name) for name, bad in BAD_ROWS.items() if bad[0].startswith(b"{")],
)
def test_a_bad_document_is_one_problem(row, reason):
    tasks, problems = read(row)

    assert tasks == []
    assert [problem.row for problem in problems] == [None]
    assert reason in problems[0].reason


@pytest.mark.parametrize("row", BROKEN_ROWS.values(), ids=BROKEN_ROWS)
def test_a_broken_line_spares_the_others(row):
    tasks, problems = read(b'{"a": 1}\n' + row + b'\n{"b": 2}\n', "a.jsonl")

    assert [task.row for task in tasks] == [0, 2]
    assert [problem.row for problem in problems] == [1]
    assert problems[0].reason.startswith("invalid JSON at character ")


@pytest.mark.parametrize("row", BROKEN_ROWS.values(), ids=BROKEN_ROWS)
@pytest.mark.parametrize("step", [1_000_000, 3])
def test_a_broken_element_ends_the_array(row, step):
    """The rows before it are kept; where the ones after it begin, nobody knows."""
    body = b'[{"a": 1}, ' + row + b', {"b": 2}]'
    rows = Array("a.json", max_row_bytes=MAX, block_bytes=5)

    tasks, problems = flat(blocks(rows, chunks(body, range(0, len(body), step))))

    assert datas_of(tasks) == [{"a": 1}]
    assert [problem.row for problem in problems] == [1]
    assert "nothing from this row on" in problems[0].reason


@pytest.mark.parametrize(
    ("body", "rows", "problem"),
    [
        pytest.param(b"", 0, (None, "empty"), id="empty"),
        pytest.param(b" \r\n\t ", 0, (None, "empty"), id="blank"),
        pytest.param(BOM, 0, (None, "empty"), id="only a BOM"),
        pytest.param(b"[", 0, (None, "never closed"), id="opened"),
        pytest.param(b'[{"a":1}, ', 1, (None, "never closed"), id="cut after a comma"),
        pytest.param(b'[{"a":1},{"b":2}', 2, (None, "never closed"), id="cut after an element"),
        pytest.param(b'[{"a":1},{"b":"x', 1, (1, "ends inside this row"), id="cut in a string"),
        pytest.param(b'[{"a":1},{"b":"\\', 1, (1, "ends inside this row"), id="cut in an escape"),
        pytest.param(
            b'[{"a":1},{"b":\xc3', 1, (1, "ends inside this row"), id="cut in a character"
        ),
        pytest.param(b'[{"a":1},]', 1, (1, "nothing from this row on"), id="comma at the end"),
        pytest.param(b'[{"a":1}}]', 0, (0, "nothing from this row on"), id="brace too many"),
        pytest.param(b"[}", 0, (0, "ends inside"), id="brace for a bracket"),
        pytest.param(b'[{"a":1}] x', 1, (None, "follows the end"), id="text after the end"),
        pytest.param(b'[{"a":1}][{"b":2}]', 1, (None, "follows the end"), id="array after array"),
        pytest.param(b'{"a": 1', 0, (None, "invalid JSON at character 7"), id="object cut off"),
        pytest.param(b'{"a": 1} x', 0, (None, "invalid JSON"), id="text after an object"),
        pytest.param(b"\x89PNG\r\n\x1a\n\0\0", 0, (None, "begins with"), id="picture"),
        pytest.param(b"PAR1\x15", 0, (None, "Parquet"), id="Parquet"),
        pytest.param(b"\x1f\x8b\x08", 0, (None, "gzip"), id="gzip"),
        pytest.param("{}".encode("utf-16"), 0, (None, "UTF-16"), id="UTF-16"),
        pytest.param(b"a,b\n1,2\n", 0, (None, "begins with"), id="CSV"),
        pytest.param(b"5", 0, (None, "begins with"), id="a number"),
    ],
)
def test_objects_that_end_badly(body, rows, problem):
    tasks, problems = read(body)

    row, reason = problem
    assert len(tasks) == rows
    assert [each.row for each in problems] == [row]
    assert reason in problems[0].reason


# However the bytes are cut


@given(
    rows_of_json, st.sampled_from([None, 1]), st.lists(st.integers(0), max_size=8), st.booleans()
)
def test_arrays_equal_what_json_reads(rows, indent, cuts, compact):
    body = dumps(rows, indent=indent, separators=(",", ":") if compact else None)
    decoded = Array("a", max_row_bytes=10**6, block_bytes=16)

    tasks, problems = flat(blocks(decoded, chunks(body, cuts)))

    assert datas_of(tasks) == [row.get("data", row) for row in rows]
    assert [task.row for task in tasks] == list(range(len(rows)))
    assert problems == []


@given(rows_of_json, st.sampled_from(["\n", "\r\n", "\n\n", " \n \n"]), st.lists(st.integers(0)))
def test_lines_equal_what_json_reads(rows, newline, cuts):
    body = newline.join(json.dumps(row, ensure_ascii=False) for row in rows).encode()

    tasks, problems = flat(blocks(Lines("a", max_row_bytes=10**6), chunks(body, cuts)))

    assert datas_of(tasks) == [row.get("data", row) for row in rows]
    assert [task.row for task in tasks] == [i * newline.count("\n") for i in range(len(rows))]
    assert len(problems) == (not rows)


fragments = st.sampled_from(
    [
        *(b",", b", ", b"\n", b"\r\n", b"[", b"]", b"}", b'"', b"\\", b" ", b"\xff", b"1e999"),
        *(b'{"a":1}', b'{"data":{"b":[{},{}]}}', b'{"a":"},{"}', b'{"a":"\\""}', b"[]", b"{}"),
        *(b'{"id":1,"x":[{"id":1},{"id":2}]}', b'{"a":NaN}', b'{"a":"\\ud800"}', b'{"a":"\\u0000'),
        b'{"a":"' + b"x" * 60 + b'"}',
    ]
)


@given(st.lists(fragments).map(b"".join), st.lists(st.integers(0)), st.integers(1, 40))
def test_chunks_make_no_difference_to_a_broken_array(body, cuts, block_bytes):
    def decoded(size: int) -> RowDecoder:
        return Array("a", max_row_bytes=50, block_bytes=size)

    whole = flat(blocks(decoded(10**6), [b"[" + body + b"]"]))

    assert flat(blocks(decoded(block_bytes), chunks(b"[" + body + b"]", cuts))) == whole


@given(st.lists(fragments).map(b"".join), st.lists(st.integers(0)))
def test_chunks_make_no_difference_to_broken_lines(body, cuts):
    whole = flat(blocks(Lines("a", max_row_bytes=50), [body]))

    assert flat(blocks(Lines("a", max_row_bytes=50), chunks(body, cuts))) == whole


@given(st.lists(fragments).map(b"".join), st.lists(st.integers(0)))
def test_lines_go_on_at_the_end_of_every_block(body, cuts):
    every = blocks(Lines("a.jsonl", max_row_bytes=50), chunks(body, cuts))

    for i, block in enumerate(every):
        rest = resume_lines("a.jsonl", row=block.next_row, offset=block.end, max_row_bytes=50)
        if block.end:
            assert flat(blocks(rest, [body[block.end :]])) == flat(every[i + 1 :])


@given(st.lists(fragments).map(b"".join), st.sampled_from(["a.json", "a.jsonl"]))
def test_no_bytes_raise(body, key):
    """Whatever an object holds is rows and problems, in the order of the rows."""
    tasks, problems = read(body, key, limit=50)

    assert [task.row for task in tasks] == sorted({task.row for task in tasks})
    assert tasks or problems or not body.strip(b"[] \r\n")


@given(rows_of_json, st.integers(1, 64))
def test_a_scan_finds_the_commas_between_elements(rows, step):
    body = ",".join(json.dumps(row) for row in rows).encode() + b"]"
    scan, buffer, found = ElementScan(), bytearray(), []

    for part in chunks(body, range(0, len(body), step)):
        buffer += part
        found += scan.separators(buffer)

    lengths = [len(json.dumps(row)) + 1 for row in rows]
    assert found == [sum(lengths[: i + 1]) - 1 for i in range(len(rows) - 1)]
    assert scan.closed == len(body) - 1


@pytest.mark.parametrize(("levels", "fits"), [(499, True), (500, False)])
@pytest.mark.parametrize("pair", ["[]", "{}"])
def test_depth_is_counted_exactly(levels, fits, pair):
    """The data itself is the first level; brackets in strings are none."""
    opening, closing = ("[", "]") if pair == "[]" else ('{"a":', "}")
    text = '{"[[": ' + opening * levels + '"]]]"' + closing * levels + "}"

    tasks, problems = read(text.encode())

    assert (len(tasks), len(problems)) == ((1, 0) if fits else (0, 1))


# Size and speed


def test_a_block_holds_a_limited_number_of_rows():
    body = b'{"a":1}\n' * 12_000
    found = blocks(Lines("a.jsonl", max_row_bytes=MAX), [body])

    assert [len(block.tasks) for block in found] == [5_000, 5_000, 2_000]
    assert [block.end for block in found] == [40_000, 80_000, 96_000]
    assert found[-1].next_row == 12_000


def large_elements(body: bytes, closing: bytes) -> Callable[[], Iterator[bytes]]:
    def parts() -> Iterator[bytes]:
        yield body
        for _ in range(300):
            yield b"x},{" * 2**16
        yield closing

    return parts


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        pytest.param(Lines, large_elements(b'{"a":1}\n{"a":"', b'"}\n{"a":3}\n'), id="lines"),
        pytest.param(Array, large_elements(b'[{"a":1},{"a":"', b'"},{"a":3}]'), id="array"),
    ],
)
def test_a_giant_row_is_let_go(make, parts):
    """75 MiB in one row cost no more than the row limit and a few chunks."""
    rows = make("a", max_row_bytes=2**21)
    tracemalloc.start()

    tasks, problems = flat(blocks(rows, parts()))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert [task.row for task in tasks] == [0, 2]
    assert [problem.row for problem in problems] == [1]
    assert "larger than" in problems[0].reason
    assert peak < 12 * 2**20


def test_an_element_larger_than_many_chunks_is_read():
    rows = [{"a": 1}, {"a": [{"a": "},{"}] * 200_000}, {"a": 2}]
    body = dumps(rows)

    tasks, problems = flat(
        blocks(Array("a", max_row_bytes=2**24), chunks(body, range(0, len(body), 2**16)))
    )

    assert datas_of(tasks) == rows
    assert problems == []


def test_a_giant_document_is_one_problem():
    tasks, problems = read(b'{\n"a": "' + b"x" * MAX + b'"}')

    assert tasks == []
    assert [problem.row for problem in problems] == [None]
    assert "larger than" in problems[0].reason


def test_an_array_of_a_giant_row_without_end():
    rows = Array("a", max_row_bytes=100, block_bytes=10)

    tasks, problems = flat(blocks(rows, [b'[{"a":1},{"a":"' + b"x" * 500]))

    assert datas_of(tasks) == [{"a": 1}]
    assert [problem.row for problem in problems] == [1]
    assert "ends inside it" in problems[0].reason


def test_a_seam_knows_the_kind_of_the_first_value():
    """Tasks and their labels may both begin with an id, the one a number, the other text."""
    body = b'{"id":1,"r":[{"id":"x"},{"id":"y"}]},{"id":22,"r":[{"id":"x"},{"id":"y"}]}'

    assert Seam().last(body) == body.index(b',{"id":22')


# Media


@pytest.mark.parametrize("uri", ["s3://b/a.jpg", 's3://b/"ü\\\n\x7f😀.jpg', "s3://b/\x01"])
def test_media(uri):
    task = media_row(uri, 'na"me')

    assert json.loads(task.data) == {'na"me': uri}
    assert (task.row, json.loads(media_row(uri).data)) == (-1, {"$undefined$": uri})


@pytest.mark.parametrize("uri", ["s3://b/\0", "file:///\udcff"])
def test_media_that_no_database_could_name(uri):
    with pytest.raises(FormatError):
        media_row(uri)
