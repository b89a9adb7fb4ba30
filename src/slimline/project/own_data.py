"""What ``slimline init`` reads out of a user's data: classes of images; columns of a table, and what a label is."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from slimline import tables
from slimline.errors import DataError, near_miss

LABEL = ("label", "labels", "category", "class", "target", "topic", "intent", "sentiment", "rating", "score", "y")
TEXT = ("text", "sentence", "review", "content", "body", "message", "comment", "document", "title", "question")
PAIRS = (("sentence1", "sentence2"), ("premise", "hypothesis"), ("question", "answer"), ("question1", "question2"),
         ("question", "sentence"), ("text_a", "text_b"), ("query", "document"))  # fmt: skip
TABLES = (".csv", ".tsv", ".jsonl", ".parquet")
MANY = 1000  # so many distinct values are no list of labels
SAMPLE = 2000


@dataclass(frozen=True)
class Described:
    """A table as the task ``text`` takes it. ``labels`` are sorted; empty where labels are numbers."""

    text: list[str]
    label: str
    answer: str
    labels: list[str]
    sample: list[Any]
    tolerance: float = 0.0


def describe(data: Path, text: Sequence[str] = (), label: str | None = None) -> Described:
    """Return what a table, or a folder with train.* and test.*, holds.

    Columns that aren't named are found by their usual names. Raises DataError saying which option names them.
    """
    files = find(data)
    first = tables.read(next(iter(files.values())))
    label = _label(first, label, text)
    texts = _texts(first, list(text), label)
    values: Counter[str] = Counter()
    sample: list[Any] = []
    for row in _rows(files.values(), [*texts, label]):
        values[json.dumps(row[label]) if isinstance(row[label], list) else str(row[label] or "").strip()] += 1
        if len(sample) < SAMPLE:
            sample.append([row[name] for name in texts] if len(texts) == 2 else row[texts[0]])
    answer, labels, tolerance = _answer(values, data, label)
    return Described(texts, label, answer, labels, sample, tolerance)


def find(data: Path) -> dict[str, Path]:
    """Return {"": table}, or {train: table, test: table} of a folder."""
    if data.is_file():
        return {"": data}
    if not data.is_dir():
        raise DataError(f"--data: {data}: no such file or folder")
    found = {}
    for part in ("train", "validation", "test"):
        tables_of = [data / f"{part}{suffix}" for suffix in TABLES if (data / f"{part}{suffix}").is_file()]
        if tables_of:
            found[part] = tables_of[0]
    if "train" not in found:
        raise DataError(f"--data: {data}: a folder with train{TABLES[0]} (or {', '.join(TABLES[1:])}) is expected")
    return found


def classes(data: Path) -> dict[str, int] | None:
    """Return how many images each class has, sorted, in class folders or an archive of such; None for a table."""
    from slimline import image_sources

    is_archive = data.is_file() and data.name.endswith(image_sources.ARCHIVES)
    if not is_archive and not (data.is_dir() and not any(data.glob("train.*"))):
        return None
    found = Counter(str(item.label) for item in image_sources.by_folder(image_sources.store(data)))
    return dict(sorted(found.items()))


def _rows(files: Any, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    for path in files:
        table = tables.read(path)
        if missing := [name for name in names if name not in table.names]:
            raise DataError(f"{path}: no column {missing[0]!r}; it has: {', '.join(table.names)}")
        for batch, _ in table.batches(1000):
            columns = [tables.plain(batch[name]) for name in names]
            yield from (dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True))


def _label(table: tables.Table, label: str | None, text: Sequence[str]) -> str:
    if label is not None:
        return _known(table, label, "--label")
    lower = {name.lower(): name for name in table.names}
    found = [lower[name] for name in LABEL if name in lower and lower[name] not in text]
    if not found:
        raise DataError(f"{table.path}: which column is the label? Name it with --label: {', '.join(table.names)}")
    return found[0]


def _texts(table: tables.Table, text: list[str], label: str) -> list[str]:
    if text:
        return [_known(table, name, "--text") for name in text]
    lower = {name.lower(): name for name in table.names if name != label}
    for pair in PAIRS:
        if all(name in lower for name in pair):
            return [lower[name] for name in pair]
    found = [lower[name] for name in TEXT if name in lower]
    found = found or (list(lower.values()) if len(lower) == 1 else [])
    if not found:
        raise DataError(f"{table.path}: which column is the text? Name it with --text: {', '.join(table.names)}")
    return found[:1]


def _known(table: tables.Table, name: str, option: str) -> str:
    if name not in table.names:
        raise DataError(
            f"{option}: {table.path} has no column {name!r}.{near_miss(name, table.names)} "
            f"It has: {', '.join(table.names)}"
        )
    return name


def _answer(values: Counter[str], data: Path, label: str) -> tuple[str, list[str], float]:
    """Return (one, many or number, the labels, what error counts as right)."""
    rows = values.total()
    if "" in values and not any("," in value or value.startswith("[") for value in values):
        raise DataError(f"{data}: column {label!r}: {values['']} rows have no label")
    numbers = [number for value in values if (number := _number(value)) is not None]
    if len(numbers) == len(values) and (len(values) > 20 or any(number != int(number) for number in numbers)):
        tenth = (max(numbers) - min(numbers)) / 10
        return "number", [], float(f"{tenth:.2g}")
    lists = all(value.startswith("[") for value in values if value)
    parts = Counter(chain.from_iterable(_parts(value, lists=lists) for value in values))
    several = any(len(_parts(value, lists=lists)) > 1 for value in values)
    if lists or (several and len(parts) < len(values)):
        return "many", sorted(parts), 0.0
    if len(values) > MANY or len(values) * 2 > rows:
        raise DataError(f"{data}: column {label!r}: {len(values)} distinct values in {rows} rows are no labels")
    whole = len(numbers) == len(values)
    return "one", sorted(values, key=(float) if whole else str), 0.0


def _parts(value: str, *, lists: bool) -> list[str]:
    found = json.loads(value) if lists and value else value.split(",")
    return [str(each).strip() for each in found if str(each).strip()]


def _number(value: str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None
