"""What ``slimline init`` reads out of a user's data: classes of images; columns of a table, and what a label is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from textwrap import shorten
from typing import Any

from slimline import tables
from slimline.errors import DataError, ParamsError, near_miss
from slimline.own_data import image_names, image_sources, image_stores
from slimline.own_data.labelled_rows import PARTS
from slimline.project.label_column import Values

LABEL = ("label", "labels", "category", "class", "target", "topic", "intent", "sentiment", "rating", "score", "tags",
         "price", "y")  # fmt: skip
TEXT = ("text", "sentence", "review", "content", "body", "message", "comment", "document", "title", "question")
PAIRS = (("sentence1", "sentence2"), ("premise", "hypothesis"), ("question", "answer"), ("question1", "question2"),
         ("question", "sentence"), ("text_a", "text_b"), ("query", "document"))  # fmt: skip
SPLIT, GROUP = "split", "group"
SAMPLE = 2000
SHOWN = 40  # letters of a column's name


@dataclass(frozen=True)
class Columns:
    """The columns that were named; those that weren't are found. So is ``answer``: one label, many, or a number.

    ``separator`` stands between labels in one cell.
    """

    text: Sequence[str] = ()
    label: str | None = None
    split: str | None = None
    group: str | None = None
    answer: str | None = None
    separator: str | None = None


@dataclass(frozen=True)
class Described:
    """Data as the tasks ``text`` and ``images`` take them. ``labels`` are sorted; empty where labels are numbers.

    ``label`` is None where class folders say it, ``text`` the columns of texts, or that of the images' paths.
    """

    text: list[str]
    label: str | None
    answer: str
    labels: list[str]
    rows: int
    sample: list[Any] = field(default_factory=list)
    tolerance: float = 0.0
    split: str | None = None
    group: str | None = None
    separator: str = ","


def describe(data: Path, columns: Columns = Columns()) -> Described:
    """Return what a table of texts, or a folder with train.* and test.*, holds.

    Columns that aren't named are found by their usual names. Raises DataError saying which option names them.
    """
    files = find(data)
    first = tables.read(next(iter(files.values())))
    label = _label(first, columns.label, columns.text)
    return _described(files, first, _texts(first, list(columns.text), label), label, columns)


def describe_images(data: Path, columns: Columns = Columns()) -> Described:
    """Return what class folders, an archive of such, or a table of images' paths holds."""
    if (found := classes(data)) is not None:
        if named := [name for name in ("label", "split", "group", "answer", "separator") if getattr(columns, name)]:
            raise ParamsError(f"--{named[0]}: {data} has no columns: the folders' names say the classes")
        return Described([tables.PATH], None, "one", list(found), sum(found.values()))
    table = tables.read(data)
    path = tables.path_column(table.names)
    if path not in table.names:
        raise DataError(
            f"{data}: no column {tables.PATH!r} (or {', '.join(tables.PATHS[1:])}), which names each image's file; it "
            f"has: {_names(table)}. For texts, --model takes an encoder: its folder, or its name on the hub"
        )
    if columns.group is None and GROUP in table.names:
        columns = replace(columns, group=GROUP)
    label = _label(table, columns.label, [path])
    return _described({"": data}, table, [path], label, columns)


def _described(files: dict[str, Path], first: tables.Table, text: list[str], label: str, named: Columns) -> Described:
    """Read all rows, and return what they say."""
    split = None if named.split is None else _known(first, named.split, "--split")
    group = None if named.group is None else _known(first, named.group, "--group")
    may_split = split is None and list(files) == [""] and SPLIT in first.names and SPLIT not in (*text, label)
    says_split = False
    values = Values(label)
    sample: list[Any] = []
    for part, path in files.items():
        table = tables.read(path)
        values.read.files.append(path)
        values.read.starts.append(values.counts.total())
        for row in _rows(table, [*text, label, *([SPLIT] if may_split else [])]):
            values.add(row[label], part, table)
            says_split = says_split or (may_split and str(row[SPLIT]).strip().lower() in PARTS)
            if len(sample) < SAMPLE:
                sample.append([row[name] for name in text] if len(text) == 2 else row[text[0]])
    found = values.answer(first.path, named.answer, named.separator)
    split = SPLIT if says_split else split
    return Described(
        text, label, found.kind, found.labels, values.counts.total(), sample, found.tolerance, split, group,
        found.separator,
    )  # fmt: skip


def find(data: Path) -> dict[str, Path]:
    """Return {"": table}, or {train: table, test: table} of a folder."""
    if data.is_file():
        return {"": data}
    if not data.is_dir():
        raise DataError(f"--data: {data}: no such file or folder")
    found: dict[str, Path] = {}
    for path in _tables(data):
        part = PARTS.get(path.stem.lower())
        if part in found:
            raise DataError(f"--data: {data}: two tables for {part}: {found[part].name}, {path.name}; take one out")
        if part is not None:
            found[part] = path
    if "train" not in found:
        first, *others = tables.SUFFIXES
        raise DataError(f"--data: {data}: a folder with train{first} (or {', '.join(others)}) is expected")
    order = list(dict.fromkeys(PARTS.values()))
    return dict(sorted(found.items(), key=lambda each: order.index(each[0])))


def unused(data: Path) -> list[Path]:
    """Return the tables in a folder whose names say no part of the data."""
    return [path for path in _tables(data) if path.stem.lower() not in PARTS]


def _tables(data: Path) -> list[Path]:
    found = data.iterdir() if data.is_dir() else ()
    return sorted(path for path in found if path.suffix.lower() in tables.SUFFIXES and path.is_file())


def classes(data: Path) -> dict[str, int] | None:
    """Return how many images each class has, sorted, in class folders or an archive of such; None for a table."""
    is_archive = data.is_file() and not image_sources.is_table(data)
    has_tables = any(data.glob("train.*")) or "train" in {PARTS.get(path.stem.lower()) for path in _tables(data)}
    if not is_archive and (not data.is_dir() or has_tables):
        return None
    files = image_stores.store(data)
    if data.is_dir() and _tables(data) and not any(map(image_names.is_image, files.names())):
        return None  # ``find`` says which table is expected
    items = image_sources.by_folder(files)
    if data.is_dir() and (empty := image_sources.empty_classes(data, items)):
        held = image_stores.Folder(empty[0])
        names, broken = ([f"{empty[0].name}/{name}" for name in each] for each in (held.names(), held.broken()))
        why = image_names.left_out(names, broken)
        said = f" ({'; '.join(why)})" if why else ""
        raise DataError(f"{empty[0]}: a class folder without an image in it{said}; put some there, or remove it")
    found = Counter(str(item.label) for item in items)
    if len(found) == 1:
        raise DataError(f"{data}: one class alone, {next(iter(found))!r}; a folder for each of two or more is expected")
    return dict(sorted(found.items()))


def left_out(data: Path) -> list[str]:
    """Return lines on the files that class folders, or an archive of such, hold beside images; none for a table."""
    return [] if image_sources.is_table(data) else image_sources.left_out(image_stores.store(data))


def _rows(table: tables.Table, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    if missing := [name for name in names if name not in table.names]:
        raise DataError(
            f"{table.path}: no column {missing[0]!r}.{near_miss(missing[0], table.names)} It has: {_names(table)}"
        )
    for batch, _ in table.batches(1000, list(dict.fromkeys(names))):
        columns = [tables.plain(batch[name]) for name in names]
        yield from (dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True))


def _names(table: tables.Table) -> str:
    """Return the columns' names in one line, however long they are: a file without a header has a row there."""
    return ", ".join(shorten(name, SHOWN, placeholder=" …") for name in table.names)


def _label(table: tables.Table, label: str | None, text: Sequence[str]) -> str:
    if label is not None:
        return _known(table, label, "--label")
    lower = {name.lower(): name for name in table.names}
    found = [lower[name] for name in LABEL if name in lower and lower[name] not in text]
    if not found:
        raise DataError(f"{table.path}: which column is the label? Name it with --label: {_names(table)}")
    return found[0]


def _texts(table: tables.Table, text: list[str], label: str) -> list[str]:
    if text:
        if len(text) > 2 or len(set(text)) < len(text):
            raise ParamsError(f"--text: one column, or two for pairs, is expected, found {', '.join(text)}")
        return [_known(table, name, "--text") for name in text]
    lower = {name.lower(): name for name in table.names if name != label}
    for pair in PAIRS:
        if all(name in lower for name in pair):
            return [lower[name] for name in pair]
    found = [lower[name] for name in TEXT if name in lower]
    found = found or (list(lower.values()) if len(lower) == 1 else [])
    if not found:
        raise DataError(f"{table.path}: which column is the text? Name it with --text: {_names(table)}")
    return found[:1]


def _known(table: tables.Table, name: str, option: str) -> str:
    if name not in table.names:
        raise DataError(
            f"{option}: {table.path} has no column {name!r}.{near_miss(name, table.names)} It has: {_names(table)}"
        )
    return name
