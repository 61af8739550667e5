"""Annotations → a file that holds many: JSON lines, or a Parquet table. It is made in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any, Protocol

from labelport.errors import ConfigurationError
from labelport.formats.exported import annotation_line
from labelport.model import ExportFormat, ExportUnit, Storage


class Part(Protocol):
    """One file while it is made, of units that hold one annotation each."""

    suffix: str
    content_type: str
    size: int  #: bytes so far, before compression

    def add(
        self, units: Sequence[ExportUnit], digests: Sequence[str], sources: Mapping[int, Storage]
    ) -> None:
        """Append a row for each unit; *sources* are import storages by id."""
        ...

    def finish(self) -> bytes:
        """The whole file. Call it once."""
        ...


def new_part(export_format: ExportFormat) -> Part:
    """An empty file. Raises `ConfigurationError` when its format needs what is not installed."""
    return ParquetPart() if export_format is ExportFormat.PARQUET else LinesPart()


class LinesPart:
    """A JSONL file: `annotation_line` of each."""

    suffix = ".jsonl"
    content_type = "application/x-ndjson"

    def __init__(self) -> None:
        self.size = 0
        self._body = BytesIO()

    def add(
        self, units: Sequence[ExportUnit], digests: Sequence[str], sources: Mapping[int, Storage]
    ) -> None:
        """See `Part.add`. A line brings its digest along."""
        for unit in units:
            self.size += self._body.write(annotation_line(unit, unit.annotations[0], sources))

    def finish(self) -> bytes:
        """See `Part.finish`."""
        return self._body.getvalue()


class ParquetPart:
    """A Parquet file with a row for each; JSON stays text, times are UTC."""

    suffix = ".parquet"
    content_type = "application/vnd.apache.parquet"

    def __init__(self) -> None:
        self.size = 0
        self._arrow = _pyarrow()
        self._schema = self._arrow.schema(_columns(self._arrow))
        self._batches: list[Any] = []

    def add(
        self, units: Sequence[ExportUnit], digests: Sequence[str], sources: Mapping[int, Storage]
    ) -> None:
        """See `Part.add`."""
        rows = [_row(unit, found, sources) for unit, found in zip(units, digests, strict=True)]
        batch = self._arrow.RecordBatch.from_pylist(rows, self._schema)
        self.size += batch.nbytes
        self._batches.append(batch)

    def finish(self) -> bytes:
        """See `Part.finish`."""
        import pyarrow.parquet

        body = BytesIO()
        with pyarrow.parquet.ParquetWriter(body, self._schema) as writer:
            for batch in self._batches:
                writer.write_batch(batch)
        return body.getvalue()


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ImportError as error:
        raise ConfigurationError(
            "Parquet needs pyarrow: pip install 'airflow-provider-labelport[parquet]'"
        ) from error
    return pyarrow


def _columns(arrow: Any) -> list[tuple[str, Any]]:
    moment = arrow.timestamp("us", tz="UTC")
    return [
        ("annotation_id", arrow.int64()),
        ("task_id", arrow.int64()),
        ("result", arrow.string()),
        ("completed_by", arrow.string()),
        ("was_cancelled", arrow.bool_()),
        ("ground_truth", arrow.bool_()),
        ("lead_time", arrow.float64()),
        ("created_at", moment),
        ("updated_at", moment),
        ("task_data", arrow.string()),
        ("source_uri", arrow.string()),
        ("source_etag", arrow.string()),
        ("digest", arrow.string()),
    ]


def _row(unit: ExportUnit, digest: str, sources: Mapping[int, Storage]) -> dict[str, object]:
    (annotation,) = unit.annotations
    link = unit.task.link
    source = sources.get(link.storage_id) if link else None
    return {
        "annotation_id": annotation.id,
        "task_id": unit.task.id,
        "result": annotation.result,
        "completed_by": annotation.completed_by,
        "was_cancelled": annotation.was_cancelled,
        "ground_truth": annotation.ground_truth,
        "lead_time": annotation.lead_time,
        "created_at": annotation.created_at,
        "updated_at": annotation.updated_at,
        "task_data": unit.task.data,
        "source_uri": source.uri(link.key) if source and link else None,
        "source_etag": link.etag if link else None,
        "digest": digest,
    }
