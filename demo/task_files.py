"""Task files in every shape an import reads, about the media in the bucket."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from demo.media import Medium

QUESTIONS = (
    "What is in the picture?",
    "Is the picture sharp?",
    "Was it taken indoors?",
    "Are there people in it?",
    "Which colour is most of it?",
)
#: The picture is cut into so many boxes a side, each a prediction.
_BOXES = 4


class TaskFile(NamedTuple):
    """An object that holds tasks."""

    key: str  #: below the bucket
    body: bytes


def task_files(bucket: str, pictures: Sequence[Medium], sounds: Sequence[Medium]) -> list[TaskFile]:
    """All of them: single tasks, an array, JSONL with predictions, and one with a broken row."""
    return [
        *_single_tasks(bucket, sounds),
        TaskFile("tasks/questions.json", _array(bucket, pictures)),
        TaskFile("tasks/boxes.jsonl", _predicted_lines(bucket, pictures)),
        TaskFile("tasks/with-a-broken-row.jsonl", _broken_lines(bucket, sounds)),
    ]


def _single_tasks(bucket: str, sounds: Sequence[Medium]) -> Iterator[TaskFile]:
    """One object a task, with an annotation that somebody has made already."""
    for sound in sounds:
        name = sound.key.rpartition("/")[2]
        task = {
            "data": {"audio": f"s3://{bucket}/{sound.key}", "licence": sound.licence},
            "annotations": [{"result": [_choice("kind", "noise")], "ground_truth": True}],
        }
        yield TaskFile(f"tasks/single/{name}.json", _json(task, indent=2))


def _array(bucket: str, pictures: Sequence[Medium]) -> bytes:
    """A JSON array, whose rows are the data alone."""
    rows = [
        {"image": f"s3://{bucket}/{picture.key}", "question": question}
        for picture in pictures
        for question in QUESTIONS
    ]
    return _json(rows, indent=1)


def _predicted_lines(bucket: str, pictures: Sequence[Medium]) -> bytes:
    """JSONL: a task a line, with what a model would predict."""
    side = 100 / _BOXES  # boxes are measured in percent of the picture
    rows = (
        {
            "data": {"image": f"s3://{bucket}/{picture.key}"},
            "predictions": [
                {
                    "model_version": "demo",
                    "score": 0.5,
                    "result": [_box(column * side, row * side, side)],
                }
            ],
        }
        for picture in pictures
        for row in range(_BOXES)
        for column in range(_BOXES)
    )
    return b"\n".join(_json(row) for row in rows) + b"\n"


def _broken_lines(bucket: str, sounds: Sequence[Medium]) -> bytes:
    """JSONL whose second line somebody cut off: the import says so, and goes on."""
    lines = [_json({"data": {"audio": f"s3://{bucket}/{sound.key}"}}) for sound in sounds]
    lines[1] = lines[1][:-9]
    return b"\n".join(lines) + b"\n"


def _choice(name: str, choice: str) -> dict[str, Any]:
    value = {"choices": [choice]}
    return {"from_name": name, "to_name": "audio", "type": "choices", "value": value}


def _box(x: float, y: float, side: float) -> dict[str, Any]:
    value = {"x": x, "y": y, "width": side, "height": side, "rectanglelabels": ["thing"]}
    return {"from_name": "box", "to_name": "image", "type": "rectanglelabels", "value": value}


def _json(value: object, *, indent: int | None = None) -> bytes:
    return json.dumps(value, indent=indent).encode()
