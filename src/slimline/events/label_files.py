"""Labels from a file (CSV, TSV, JSON lines or Parquet): columns id, label and, where requests hold several rows, index.

A file is read twice: first to find every mistake, so that a bad one changes nothing, then to write.
"""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from slimline import tables
from slimline.errors import DataError, EventError, near_miss
from slimline.events import labels as label_log
from slimline.events.records import Label, Outcome, Value
from slimline.events.store import EventStore

Place = tuple[str, dict[str, Any]]
Progress = Callable[[int, int], None]
COLUMNS = ("id", "index", "label")
BATCH = 1000


def load(store: EventStore, path: Path, kind: str = "auto", progress: Progress | None = None) -> dict[Outcome, int]:
    """Write every label of a file and return how many came to which outcome; ``progress(done, total)`` is told.

    ``kind`` is what the column label holds: text, a number, JSON, or (auto) what the file says, which for CSV is
    text. Labels are on the disk batch by batch; a run that was cut short may be repeated, what was written is then a
    duplicate. Raises EventError naming file and row of the first mistake.
    """
    if kind not in KINDS:
        raise EventError(f"{kind!r} is no kind of label.{near_miss(kind, list(KINDS))} Kinds: {', '.join(KINDS)}")
    total = sum(1 for _ in read(path, kind, now=0.0))
    counts = dict.fromkeys(Outcome, 0)
    refused = ""
    done = 0
    labels = read(path, kind, now=time.time())
    while batch := list(islice(labels, BATCH)):
        try:
            outcomes = store.label([label for _, label in batch])
        except EventError as error:
            raise EventError(
                f"{path}: {done} of {total} labels are written; run it again when this is mended: {error}", error.reason
            ) from error
        for (place, label), outcome in zip(batch, outcomes, strict=True):
            counts[outcome] += 1
            if outcome is Outcome.NO_SUCH_ROW:
                refused = refused or f"{place}: index: prediction {label.id!r} has no row {label.index}"
        done += len(batch)
        if progress is not None:
            progress(done, total)
    if refused:
        raise EventError(f"{refused} (the first of {counts[Outcome.NO_SUCH_ROW]} such; the other labels are written)")
    return counts


def read(path: Path, kind: str, now: float) -> Iterator[tuple[str, Label]]:
    """Yield (where it stands, label) for each row; raise EventError naming file and row of a mistake."""
    readers = {".csv": _csv, ".tsv": _csv, ".jsonl": _jsonl, ".ndjson": _jsonl, ".parquet": _parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise EventError(f"{path}: the ending {path.suffix!r} is unknown: give .csv, .tsv, .jsonl or .parquet")
    if not path.is_file():
        raise EventError(f"{path}: no such file")
    if kind == "auto" and reader is _csv:
        kind = "text"
    mark = tables.delimiter(path) if kind == "number" and reader is _csv else None
    written = tables.Numbers()
    for place, record in reader(path):
        value = record.get("label")
        try:
            if mark is not None:
                value = written.read(value, place, partial(tables.with_point, mark=mark))
                written.check(str, "label")
            value = _value(value, kind)
            label = Label(_id(record.get("id")), _index(record.get("index")), value, now)
            label_log.encoded([label])
        except DataError as error:
            raise EventError(str(error)) from error
        except (EventError, ValueError) as error:
            raise EventError(f"{place}: {error}") from error
        yield place, label


def _columns(names: list[str], where: str) -> None:
    for name in names:
        if name not in COLUMNS:
            raise EventError(
                f"{where}: column {name!r} is unknown.{near_miss(name, list(COLUMNS))} Columns: {', '.join(COLUMNS)}"
            )
    for name in ("id", "label"):
        if name not in names:
            raise EventError(f"{where}: column {name!r} is missing")
    if len(set(names)) < len(names):
        raise EventError(f"{where}: a column stands there twice: {', '.join(names)}")


def _csv(path: Path) -> Iterator[Place]:
    try:
        with path.open("rb") as file:
            rows = tables.csv_rows(file, path)
            names: list[str] = next(rows, [])
            _columns(names, f"{path}: line {max(rows.line_num, 1)}")
            for row in rows:
                place = f"{path}: line {rows.line_num}"
                if len(row) != len(names):
                    raise EventError(f"{place}: {len(row)} columns, the header has {len(names)}")
                yield place, dict(zip(names, row, strict=True))
    except csv.Error as error:
        raise EventError(f"{path}: line {rows.line_num + 1}: {error}") from error
    except DataError as error:
        raise EventError(str(error)) from error


def _jsonl(path: Path) -> Iterator[Place]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            place = f"{path}: line {number}"
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except ValueError as error:
                raise EventError(f"{place}: no JSON: {error}") from error
            if not isinstance(record, dict):
                raise EventError(f'{place}: expected {{"id": …, "label": …}}')
            _columns(list(record), place)
            yield place, record


def _parquet(path: Path) -> Iterator[Place]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise EventError(f"{path}: {error.name} isn't installed: pip install 'slimline[parquet]'") from error
    try:
        file = parquet.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise EventError(f"{path}: no Parquet file: {error}") from error
    with file:
        names = [name for name in file.schema_arrow.names if not name.startswith("__index_level_")]  # pandas' own
        _columns(names, str(path))
        number = 0
        try:
            for batch in file.iter_batches(columns=names):
                for record in batch.to_pylist():
                    number += 1
                    yield f"{path}: row {number}", record
        except (pa.ArrowException, OSError) as error:
            raise EventError(f"{path}: after row {number}: {error}") from error


def _id(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value:
        raise EventError(f"id: expected text, found {value!r}")
    return value


def _index(value: Any) -> int:
    if value is None or value == "":
        return 0
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise EventError(f"index: expected a whole number, found {value!r}")
    return value


def _value(value: Any, kind: str) -> Value:
    if value is None or (isinstance(value, str) and not value):
        raise EventError("label: is empty")
    if isinstance(value, bool) or not isinstance(value, str | int | float | list):
        raise EventError(f"label: expected text, a number or a list, found {value!r}")
    return KINDS[kind](value)


def _text(value: Value) -> Value:
    if isinstance(value, float | list):
        raise EventError(f"label: expected text, found {value!r}")
    return str(value)


def _number(value: Value) -> Value:
    try:
        return float(value)  # type: ignore[arg-type]  # a list is a TypeError
    except (ValueError, TypeError):
        raise EventError(f"label: expected a number, found {value!r}") from None


def _decoded(value: Value) -> Value:
    try:
        decoded: Value = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        raise EventError(f"label: no JSON: {value!r}") from None
    return decoded


KINDS: dict[str, Callable[[Value], Value]] = {
    "auto": lambda value: value,
    "text": _text,
    "number": _number,
    "json": _decoded,
}
