"""Offline scoring: a release's answers to every row of a file. Needs no torch.

A row's input is either arrays, a column for each input of the model, or raw: a column of text, of paths of images or
of their bytes, which goes through the release's own preprocess.json.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from slimline import manifest, preprocess, tables
from slimline.answers import Answers
from slimline.errors import DataError, InputError
from slimline.predictor import Arrays, Predictor
from slimline.tables import Columns, Table

RAW = ("text", "path", "file", "raw")


def score(
    release: Path,
    source: Path,
    target: Path,
    *,
    column: str | None = None,
    batch: int = 64,
    threads: int | None = None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> int:
    """Answer every row of ``source`` and write ``target``, whole or not at all; return how many rows there were.

    ``source`` is a folder of images, .csv or .parquet, ``target`` .csv or .parquet: the source's other columns, then
    ``label`` and ``probability.LABEL`` (without labels, the outputs). ``column`` holds the raw input where its name
    doesn't say so. Raises DataError or InputError naming file and row; nothing is written then.
    """
    if target.resolve() == source.resolve():
        raise DataError(f"{target}: is the file that is read; name another")
    table = tables.read(source)
    predictor = Predictor(release, threads=threads)
    try:
        with tables.written(target) as write:
            rows = 0
            feed = Feed(release, predictor, table, column)
            answers = Answers(predictor.signature)
            for columns, done in table.batches(batch):
                count = len(next(iter(columns.values())))
                outputs = _answered(predictor, feed, columns, rows)
                write(_named(_kept(columns, feed), answers, outputs))
                rows += count
                progress(done, table.total)
            if not rows:
                raise DataError(f"{source}: no row in it")
    finally:
        predictor.close()
    return rows


class Feed:
    """Turns a table's columns into the model's input arrays."""

    def __init__(self, release: Path, predictor: Predictor, table: Table, column: str | None) -> None:
        folder = release
        if (release / "card.json").is_file():
            folder = release / "chain" / manifest.read_json(release / "card.json")["last"]
        self.table = table
        self.inputs: list[dict[str, Any]] = predictor.signature["inputs"]
        self.document: dict[str, Any] = preprocess.read(folder)
        self.images = bool(self.document["steps"]) and self.document["steps"][0]["op"] == "decode_image"
        self.raw = self._raw_column(column)

    def _raw_column(self, column: str | None) -> str | None:
        """Return the column of raw values, or None when every input has a column of numbers."""
        names = self.table.names
        if column is not None:
            if column not in names:
                raise DataError(f"{self.table.path}: no column {column!r}; it has {', '.join(names)}")
            return column
        if all(spec["name"] in names for spec in self.inputs) and self._holds_numbers():
            return None
        for each in (self.document["input"], *RAW):
            if each in names:
                return str(each)
        wanted = ", ".join(spec["name"] for spec in self.inputs)
        raise DataError(
            f"{self.table.path}: no column for {wanted}, and none called {', '.join(RAW)}; it has {', '.join(names)}: "
            "name the one with the raw input with --column"
        )

    def _holds_numbers(self) -> bool:
        for columns, _ in self.table.batches(1):
            return all(_is_numbers(tables.plain(columns[spec["name"]])[0]) for spec in self.inputs)
        return True

    def __call__(self, columns: Columns) -> Arrays:
        if self.raw is not None:
            return preprocess.run(self.document, [self._raw_value(each) for each in tables.plain(columns[self.raw])])
        return {spec["name"]: _array(tables.plain(columns[spec["name"]]), spec) for spec in self.inputs}

    def _raw_value(self, value: Any) -> Any:
        if isinstance(value, dict):  # how image columns of data sets are stored: {"bytes": …, "path": …}
            value = value.get("bytes") or value.get("path")
        if value is None or value == "":
            raise DataError(f"column {self.raw!r} is empty")
        if self.images and isinstance(value, str):
            folder = self.table.path if self.table.path.is_dir() else self.table.path.parent
            return folder / value
        return value


def _answered(predictor: Predictor, feed: Feed, columns: Columns, start: int) -> Arrays:
    """Return the outputs of one batch; when it can't be answered, find the row that is to blame."""
    try:
        return predictor.predict(feed(columns))
    except (DataError, InputError) as error:
        for index in range(len(next(iter(columns.values())))):
            row = {name: values[index : index + 1] for name, values in columns.items()}
            try:
                predictor.check(feed(row))
            except (DataError, InputError) as own:
                raise type(own)(f"{feed.table.path}: row {start + index + 1}{_shown(feed, row)}: {own}") from error
        raise type(error)(f"{feed.table.path}: from row {start + 1}: {error}") from error


def _shown(feed: Feed, row: Columns) -> str:
    value = tables.plain(row[feed.raw])[0] if feed.raw is not None else None
    return f" ({value})" if feed.images and isinstance(value, str) else ""


def _is_numbers(value: Any) -> bool:
    return _number(value) is not None or isinstance(value, list)


def _number(value: Any) -> Any:
    """Return a number, or a list of them, from a cell; text that is neither is None."""
    if not isinstance(value, str):
        return value if isinstance(value, int | float | list) else None
    try:
        found = json.loads(value)
    except ValueError:
        return None
    return found if isinstance(found, int | float | list) else None


def _array(values: list[Any], spec: dict[str, Any]) -> Any:
    shape = [size for size in spec["shape"][1:] if isinstance(size, int)]
    fixed = len(shape) == len(spec["shape"]) - 1
    rows = []
    for value in values:
        found = _number(value)
        if found is None:
            raise InputError(f"input {spec['name']!r}: {value!r} is neither a number nor a list of numbers")
        try:
            row = np.asarray(found, spec["dtype"])
            rows.append(row.reshape(shape) if fixed else row)
        except (ValueError, TypeError, OverflowError) as error:
            raise InputError(f"input {spec['name']!r}: {error}, expected {spec['shape']}") from error
    try:
        return np.stack(rows)
    except ValueError as error:
        raise InputError(f"input {spec['name']!r}: rows of several shapes; score with --batch 1") from error


def _kept(columns: Columns, feed: Feed) -> Columns:
    """Return the columns that go into the answer's file: all but what the model was fed; paths stay, they name rows."""
    if feed.raw is None:
        fed = {spec["name"] for spec in feed.inputs}
    else:
        paths = feed.images and all(isinstance(value, str) for value in tables.plain(columns[feed.raw]))
        fed = set() if paths else {feed.raw}
    return {
        name: values
        for name, values in columns.items()
        if name not in fed and not any(isinstance(value, bytes | dict | list) for value in tables.plain(values))
    }


def _named(kept: Columns, answers: Answers, outputs: Arrays) -> dict[str, Any]:
    labels, values = answers.of(outputs)
    scored: dict[str, Any] = {}
    if labels is not None and answers.labels is not None:
        scored = {"label": labels} | {
            f"probability.{label}": values[:, index] for index, label in enumerate(answers.labels)
        }
    else:
        for name, array in outputs.items():
            flat = array.reshape(len(array), -1)
            scored |= {name if flat.shape[1] == 1 else f"{name}.{at}": flat[:, at] for at in range(flat.shape[1])}
    return {f"input.{name}" if name in scored else name: column for name, column in kept.items()} | scored
