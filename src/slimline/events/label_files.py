"""Labels from a file (CSV, TSV, JSON lines or Parquet): columns id, label and, where requests hold several rows, index.

A file is read twice: first to find every mistake, so that a bad one changes nothing, then to write.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from slimline import tables
from slimline.errors import DataError, EventError, near_miss
from slimline.events import labels as label_log
from slimline.events.records import Label, Outcome, Value
from slimline.events.store import EventStore
from slimline.tables import Table, json_lines

Place = tuple[str, dict[str, Any]]
Progress = Callable[[int, int], None]
COLUMNS = ("id", "index", "label")
TEXT = (".csv", ".tsv")  # every value is text
OBJECTS = (".jsonl", ".ndjson")
SUFFIXES = (*TEXT, *OBJECTS, ".parquet")
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
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise EventError(f"{path}: the ending {path.suffix!r} is unknown: give .csv, .tsv, .jsonl or .parquet")
    if not path.is_file():
        raise EventError(f"{path}: no such file")
    try:
        table = None if suffix in OBJECTS else tables.read(path)
        if kind == "auto" and suffix in TEXT:
            kind = "text"
        written = tables.Numbers()
        for place, record in _objects(path) if table is None else _rows(table):
            value = record.get("label")
            if kind == "number" and table is not None:
                value = written.read(value, place, table.number)
                written.check(str, "label")
            yield place, _label(record, value, kind, now, place)
    except DataError as error:
        raise EventError(str(error)) from error


def _label(record: dict[str, Any], value: Any, kind: str, now: float, place: str) -> Label:
    try:
        label = Label(_id(record.get("id")), _index(record.get("index")), _value(value, kind), now)
        label_log.encoded([label])
    except (EventError, ValueError) as error:
        raise EventError(f"{place}: {error}") from error
    return label


def _check_columns(names: list[str], where: str) -> None:
    for name in names:
        if name not in COLUMNS:
            raise EventError(
                f"{where}: column {name!r} is unknown.{near_miss(name, list(COLUMNS))} Columns: {', '.join(COLUMNS)}"
            )
    for name in ("id", "label"):
        if name not in names:
            raise EventError(f"{where}: column {name!r} is missing")


def _rows(table: Table) -> Iterator[Place]:
    names = [name for name in table.names if not name.startswith("__index_level_")]  # pandas' own
    _check_columns(names, str(table.path))
    for place, row in table.rows():
        yield place, {name: row[name] for name in names}


def _objects(path: Path) -> Iterator[Place]:
    with path.open("rb") as file:
        for number, record in json_lines.objects(file, path):
            place = f"{path}: line {number}"
            _check_columns(list(record), place)
            yield place, record


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
