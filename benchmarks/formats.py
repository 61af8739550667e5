"""How fast object bytes become task rows, against ijson in the same run.

    python benchmarks/formats.py --mib 1024

Each measurement is a process of its own, so that its peak memory is its own. The bytes are made
while they are read: nothing is held or written. Times are CPU seconds without those of making.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import ijson  # type: ignore[import-untyped]

from labelport.formats import RowDecoder, decoder
from labelport.model import AnnotationRow, TaskRow

CHUNK = 2**20
MIB = 2**20


def small(i: int) -> dict[str, object]:
    """A picture's row of some 65 bytes."""
    return {"data": {"image": f"s3://bucket/pictures/{i:08}.jpg", "page": i}}


def rich(i: int) -> dict[str, object]:
    """A labeled row of some 1.2 KB, as an export has it."""
    regions = [
        {
            "id": f"r{j}",
            "type": "rectanglelabels",
            "value": {
                "x": random.random() * 100,
                "y": random.random() * 100,
                "width": 12.5,
                "height": 7.25,
                "rotation": 0,
                "rectanglelabels": ["Car"],
            },
            "from_name": "label",
            "to_name": "image",
            "original_width": 1920,
        }
        for j in range(4)
    ]
    annotation = {
        "id": i,
        "completed_by": 1,
        "result": regions,
        "was_cancelled": False,
        "lead_time": 12.5,
        "created_at": "2026-01-01T00:00:00.000000Z",
    }
    data = {"image": f"s3://bucket/pictures/{i:08}.jpg", "text": "a street at noon " * 8}
    return {"id": i, "data": data, "annotations": [annotation]}


ROWS: dict[str, Callable[[int], dict[str, object]]] = {"small": small, "rich": rich}


class Source:
    """An object of about *size* bytes that repeats the same rows; ``seconds`` went into making."""

    def __init__(self, row: Callable[[int], dict[str, object]], size: int, *, array: bool) -> None:
        between = b", " if array else b"\n"
        rows = between.join(json.dumps(row(i)).encode() for i in range(2_000)) + between
        self._period = rows
        self._opening, self._closing = (
            (b"[", json.dumps(row(0)).encode() + b"]") if array else (b"", b"")
        )
        self._repeats = max(size // len(rows), 1)
        self._parts = self._chunks()
        self._rest = b""
        self.size = len(self._opening) + self._repeats * len(rows) + len(self._closing)
        self.rows = self._repeats * 2_000 + array
        self.seconds = 0.0

    def _chunks(self) -> Iterator[bytes]:
        yield self._opening
        for _ in range(self._repeats):
            for start in range(0, len(self._period), CHUNK):
                yield self._period[start : start + CHUNK]
        yield self._closing

    def read(self, size: int = -1) -> bytes:
        started = time.process_time()
        while len(self._rest) < (CHUNK if size < 0 else size):
            part = next(self._parts, None)
            if part is None:
                break
            self._rest += part
        given, self._rest = self._rest[:size], self._rest[size:]
        self.seconds += time.process_time() - started
        return given


def labelport(source: Source, *, key: str) -> int:
    """Object bytes → TaskRow, all checks included."""
    head = source.read(CHUNK)
    rows: RowDecoder = decoder(key, head, complete=False, max_row_bytes=16 * MIB)
    count = 0
    chunk = head
    while chunk:
        for block in rows.feed(chunk):
            assert not block.problems, block.problems
            count += len(block.tasks)
        chunk = source.read(CHUNK)
    for block in rows.finish():
        assert not block.problems, block.problems
        count += len(block.tasks)
    return count


def ijson_dicts(source: Source) -> int:
    """What ijson alone does: dictionaries, no row made of them, nothing checked."""
    return sum(1 for _ in ijson.items(source, "item", use_float=True, buf_size=CHUNK))


def ijson_rows(source: Source) -> int:
    """The same TaskRow objects through ijson: what is read goes back to JSON text."""
    count = 0
    for number, item in enumerate(ijson.items(source, "item", use_float=True, buf_size=CHUNK)):
        annotations = [
            AnnotationRow(json.dumps(each["result"]), str(each["completed_by"]))
            for each in item.get("annotations", ())
        ]
        count += bool(TaskRow(number, json.dumps(item["data"]), annotations))
    return count


def measure(reader: str, row: str, size: int) -> dict[str, float]:
    """Run one reader in this process."""
    source = Source(ROWS[row], size, array=reader != "lines")
    started = time.process_time()
    match reader:
        case "lines":
            count = labelport(source, key="rows.jsonl")
        case "array":
            count = labelport(source, key="rows.json")
        case "ijson dicts":
            count = ijson_dicts(source)
        case _:
            count = ijson_rows(source)
    seconds = time.process_time() - started - source.seconds
    assert count == source.rows, (count, source.rows)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"rows": count, "bytes": source.size, "seconds": seconds, "peak": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--mib", type=int, default=1024, help="size of the object")
    parser.add_argument("--ijson-mib", type=int, default=128, help="size of the object for ijson")
    parser.add_argument("--one", nargs=2, metavar=("READER", "ROW"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        reader, row = options.one
        print(json.dumps(measure(reader, row, options.mib * MIB)))
        return

    print(f"ijson {ijson.__version__}, backend {ijson.backend}; CPU seconds, one process each\n")
    for row in ROWS:
        speeds = {}
        for reader in ("lines", "array", "ijson dicts", "ijson rows"):
            mib = options.ijson_mib if reader.startswith("ijson") else options.mib
            command = [sys.executable, __file__, "--mib", str(mib), "--one", reader, row]
            found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
            speeds[reader] = found["bytes"] / found["seconds"] / MIB
            print(
                f"{row:5} {reader:12} {found['bytes'] / MIB:6.0f} MiB {speeds[reader]:6.0f} MiB/s "
                f"{found['rows'] / found['seconds'] / 1000:6.0f}k rows/s "
                f"peak {found['peak'] / MIB:4.0f} MiB"
            )
        for other in ("ijson rows", "ijson dicts"):
            print(f"{row:5} array is {speeds['array'] / speeds[other]:.1f}x {other}")
        print()


if __name__ == "__main__":
    main()
