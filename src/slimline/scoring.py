"""Offline scoring: a release's answers to every row of a file. Needs no torch.

A row's input is either arrays, a column for each input of the model, or raw: a column of text, of paths of images or
of their bytes, which goes through the release's own preprocess.json.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from slimline import manifest, preprocess, tables
from slimline.answers import Answers
from slimline.errors import DataError, InputError
from slimline.own_data.labelled_rows import Mistakes, Read
from slimline.predictor import Arrays, Predictor
from slimline.tables import PATHS, Columns, Table

RAW = ("text", "path", "file_name", "file", "raw")
INPUT = re.compile(r"^input '[^']*': ")
NAMED = re.compile(r""":? ('[^']*'|"[^"]*"|<_io\.BytesIO[^>]*>)$""")  # the file, as Pillow ends its messages
IMAGES = tuple(dict.fromkeys([*RAW, *PATHS]))


def score(
    release: Path,
    source: Path,
    target: Path,
    *,
    column: str | Sequence[str] = (),
    batch: int = 64,
    threads: int | None = None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> int:
    """Answer every row of ``source`` and write ``target``, whole or not at all; return how many rows there were.

    ``source`` is what ``tables.read`` opens, ``target`` .csv or .parquet: the source's columns, as ``Carried`` says,
    then ``label`` and ``probability.LABEL`` (without labels, the outputs). ``column`` (two for pairs of texts) holds
    the raw input; without it the one that the task was trained on does, or one whose name says so. Raises DataError
    naming the file, the first wrong rows and how many more there are; nothing is written then.
    """
    if target.resolve() == source.resolve():
        raise DataError(f"{target}: is the file that is read; name another")
    table = tables.read(source)
    predictor = Predictor(release, threads=threads)
    try:
        with tables.written(target) as write:
            rows = 0
            feed = Feed(release, predictor, table, [column] if isinstance(column, str) else column)
            answers = Answers(predictor.signature)
            carried = Carried(feed)
            wrong = Wrong(predictor, feed)
            for columns, done in wrong.mistakes.over(table.batches(batch)):
                outputs = wrong.answered(columns, rows)
                if outputs is not None:
                    scored = _scored(answers, outputs)
                    write(carried.of(columns, scored, rows) | scored)
                rows += len(next(iter(columns.values())))
                progress(done, table.total)
            wrong.mistakes.tell()
            if not rows:
                raise DataError(f"{source}: no row in it")
    finally:
        predictor.close()
    return rows


class Feed:
    """Turns a table's columns into the model's input arrays."""

    def __init__(self, release: Path, predictor: Predictor, table: Table, named: Sequence[str] = ()) -> None:
        folder = release
        if (release / "card.json").is_file():
            folder = release / "chain" / manifest.read_json(release / "card.json")["last"]
        self.table = table
        self.inputs: list[dict[str, Any]] = predictor.signature["inputs"]
        self.document: dict[str, Any] = preprocess.read(folder)
        self.images = bool(self.document["steps"]) and self.document["steps"][0]["op"] == "decode_image"
        self.raw = self._raw_columns(named)

    def _raw_columns(self, named: Sequence[str]) -> list[str]:
        """Return the columns of raw values, or none when every input has a column of numbers."""
        names = self.table.names
        if missing := [each for each in named if each not in names]:
            raise DataError(f"{self.table.path}: no column {missing[0]!r}; it has {', '.join(names)}")
        if named:
            most = 2 if preprocess.takes_pairs(self.document) else 1
            if len(named) > most:
                raise DataError(f"--column: {len(named)} columns, and the model takes {most} a row")
            return list(named)
        if all(spec["name"] in names for spec in self.inputs) and self._holds_numbers():
            return []
        usual = IMAGES if self.images else RAW
        for columns in (self.document.get("columns"), [self.document["input"]], *([each] for each in usual)):
            if columns and all(each in names for each in columns):
                return list(columns)
        texts = any(step["op"] == "tokenize" for step in self.document["steps"])
        wanted = "images" if self.images else "texts" if texts else "raw input"
        known = ", ".join([*(self.document.get("columns") or []), *usual])
        raise DataError(
            f"{self.table.path}: no column of {wanted}, none called {known}; it has {', '.join(names)}: name the one "
            "that holds them with --column" + (", twice for pairs" if preprocess.takes_pairs(self.document) else "")
        )

    def _holds_numbers(self) -> bool:
        for columns, _ in self.table.batches(1):
            return all(_is_numbers(tables.plain(columns[spec["name"]])[0]) for spec in self.inputs)
        return True

    def __call__(self, columns: Columns) -> Arrays:
        if self.raw:
            held = [[self._raw_value(each, name) for each in tables.plain(columns[name])] for name in self.raw]
            return preprocess.run(self.document, held[0] if len(held) == 1 else [*map(list, zip(*held, strict=True))])
        return {spec["name"]: _array(tables.plain(columns[spec["name"]]), spec) for spec in self.inputs}

    def _raw_value(self, value: Any, column: str) -> Any:
        if isinstance(value, dict):  # how image columns of data sets are stored: {"bytes": …, "path": …}
            value = value.get("bytes") or value.get("path")
        if value is None or value == "":
            raise DataError(f"column {column!r} is empty")
        return self.table.image(value) if self.images and isinstance(value, str) else value


class Wrong:
    """The rows that can't be answered: once there is one, nothing is written, so the others are only looked at."""

    def __init__(self, predictor: Predictor, feed: Feed) -> None:
        self._predictor, self._feed = predictor, feed
        self._read = Read([feed.table.path], [0])
        self.mistakes = Mistakes(self._read)

    def answered(self, columns: Columns, start: int) -> Arrays | None:
        """Return the outputs of a batch, before which ``start`` rows stand; None where rows are wrong so far."""
        try:
            inputs = self._feed(columns)
            if not self.mistakes:
                return self._predictor.predict(inputs)
            self._predictor.check(inputs)
        except (DataError, InputError) as error:
            if not self._note(columns, start):
                said = f"{self._feed.table.path}: from row {start + 1}: {_of_given(self._feed, error)}"
                self.mistakes.tell(f"; then {said}")
                raise DataError(said) from error
        return None

    def _note(self, columns: Columns, start: int) -> bool:
        """Note the rows of a batch that are wrong by themselves; return whether there are any."""
        found = False
        for at in range(len(next(iter(columns.values())))):
            row = {name: values[at : at + 1] for name, values in columns.items()}
            try:
                self._predictor.check(self._feed(row))
            except (DataError, InputError) as error:
                found, number = True, start + at
                if self._feed.images and self._feed.raw:
                    self._read.names[number] = f"row {number + 1}{_shown(self._feed, row)}"
                self.mistakes.note(number, _of_given(self._feed, error))
        return found


def _shown(feed: Feed, row: Columns) -> str:
    value = tables.plain(row[feed.raw[0]])[0]
    return f" ({value})" if isinstance(value, str) else ""


def _of_given(feed: Feed, error: DataError | InputError) -> str:
    """Return what is wrong with one row: of raw input, by the column that was given, not the array made of it.

    An image's file is left out, since the row is told with it: so like mistakes are told together.
    """
    said = str(error)
    if not feed.raw or said.startswith("column "):
        return said
    column = " and ".join(f"column {name!r}" for name in feed.raw)
    if isinstance(error, InputError):
        return f"{column}, as preprocess.json makes it: {INPUT.sub('', said)}"
    if feed.images:
        return NAMED.sub("", said.removeprefix("image 0: "))
    return f"{column}: {said.removeprefix('text 0: ')}"


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


class Carried:
    """The source's columns beside the answers: they say which row an answer belongs to.

    Left out are what can't be read there: images' bytes, and lists of numbers that the model was fed. Of an image with
    bytes and a path the path stays; other lists and objects, such as a pair of texts, become JSON. Where nothing is
    left, ``row`` counts from 1. A column named like one of the answers becomes ``input.NAME``.
    """

    def __init__(self, feed: Feed) -> None:
        self._table = feed.table
        self._arrays = {spec["name"] for spec in feed.inputs} if not feed.raw else set()
        self._names: dict[str, str] | None = None  # the first batch decides: a file has the same columns to its end

    def of(self, columns: Columns, scored: Columns, start: int) -> Columns:
        """Return the columns to write before ``scored``; ``start`` rows stand before this batch."""
        if self._names is None:
            self._names = self._chosen(columns, scored)
        if not self._names:
            rows = range(start + 1, start + 1 + len(next(iter(columns.values()))))
            return {"input.row" if "row" in scored else "row": list(rows)}
        return {own: _cells(columns[name]) for name, own in self._names.items()}

    def _chosen(self, columns: Columns, scored: Columns) -> dict[str, str]:
        """Return {column: the name it is written under}."""
        kept = [name for name, values in columns.items() if not self._is_left_out(name, tables.plain(values))]
        names = {name: f"input.{name}" if name in scored else name for name in kept}
        for name, own in names.items():
            if own != name and (own in kept or own in scored):
                raise DataError(
                    f"{self._table.path}: column {name!r} is also one of the answers, and {own!r} is taken; rename one"
                )
        return names

    def _is_left_out(self, name: str, values: list[Any]) -> bool:
        if name in self._arrays and any(isinstance(_number(each), list) for each in values):
            return True
        return any(_holds_bytes(each) for each in values) and all(_cell(each) is None for each in values)


def _holds_bytes(value: Any) -> bool:
    return isinstance(value, bytes) or (isinstance(value, dict) and isinstance(value.get("bytes"), bytes))


def _cells(values: Any) -> Any:
    """Return a column as it is written; one without lists, objects and bytes keeps its type."""
    held = tables.plain(values)
    return [_cell(each) for each in held] if any(isinstance(each, bytes | dict | list) for each in held) else values


def _cell(value: Any) -> Any:
    if isinstance(value, bytes):
        return None
    if isinstance(value, dict) and value.keys() <= {"bytes", "path"}:  # as data sets store images
        return value.get("path")
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, dict | list) else value


def _scored(answers: Answers, outputs: Arrays) -> dict[str, Any]:
    labels, values = answers.of(outputs)
    if labels is not None and answers.labels is not None:
        return {"label": labels} | {
            f"probability.{label}": values[:, index] for index, label in enumerate(answers.labels)
        }
    scored: dict[str, Any] = {}
    for name, array in outputs.items():
        flat = array.reshape(len(array), -1)
        scored |= {name if flat.shape[1] == 1 else f"{name}.{at}": flat[:, at] for at in range(flat.shape[1])}
    return scored
