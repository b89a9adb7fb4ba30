"""What ``slimline init`` reads out of a user's data: classes of images; columns of a table, and what a label is."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from textwrap import shorten
from typing import Any, NamedTuple

from slimline import image_names, labelled_rows, tables
from slimline.errors import DataError, ParamsError, near_miss
from slimline.labelled_rows import FEW as NAMED
from slimline.labelled_rows import PARTS, Read, listed

LABEL = ("label", "labels", "category", "class", "target", "topic", "intent", "sentiment", "rating", "score", "tags",
         "price", "y")  # fmt: skip
TEXT = ("text", "sentence", "review", "content", "body", "message", "comment", "document", "title", "question")
PAIRS = (("sentence1", "sentence2"), ("premise", "hypothesis"), ("question", "answer"), ("question1", "question2"),
         ("question", "sentence"), ("text_a", "text_b"), ("query", "document"))  # fmt: skip
SPLIT, GROUP = "split", "group"
KINDS = ["one", "many", "number"]
SEPARATORS = (",", ";", "|")  # between labels in one cell
FEW = 20  # so many distinct whole numbers can be labels
NEARLY = 0.95  # so large a share of numbers, and the rest are mistakes
FLAGS = {"0", "1", "0.0", "1.0", "False", "True", "false", "true"}
NO_VALUE = {"nan", "n/a", "na", "null", "none", "nil", "-", "--", "?", "inf", "-inf"}
MANY = 1000  # so many distinct values are no list of labels
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
    values = _Values()
    sample: list[Any] = []
    for part, path in files.items():
        table = tables.read(path)
        values.read.files.append(path)
        values.read.starts.append(values.counts.total())
        for row in _rows(table, [*text, label, *([SPLIT] if may_split else [])]):
            if not _is_label(row[label]):
                shown = shorten(repr(row[label]), SHOWN, placeholder=" …")
                raise DataError(
                    f"{values.read.where(values.counts.total())}: column {label!r}: {shown} is no label; a text, a "
                    "number, or a list of them is expected"
                )
            values.add(row[label], part, table)
            says_split = says_split or (may_split and str(row[SPLIT]).strip().lower() in PARTS)
            if len(sample) < SAMPLE:
                sample.append([row[name] for name in text] if len(text) == 2 else row[text[0]])
    found = values.answer(first.path, label, named.answer, named.separator)
    split = SPLIT if says_split else split
    return Described(
        text, label, found.kind, found.labels, values.counts.total(), sample, found.tolerance, split, group,
        found.separator,
    )  # fmt: skip


def _is_label(value: Any) -> bool:
    inner = value if isinstance(value, list) else [value]
    return not any(isinstance(each, bytes | dict | list) for each in inner)


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
    from slimline import image_sources

    is_archive = data.is_file() and not image_sources.is_table(data)
    has_tables = any(data.glob("train.*")) or "train" in {PARTS.get(path.stem.lower()) for path in _tables(data)}
    if not is_archive and (not data.is_dir() or has_tables):
        return None
    files = image_sources.store(data)
    if data.is_dir() and _tables(data) and not any(map(image_names.is_image, files.names())):
        return None  # ``find`` says which table is expected
    items = image_sources.by_folder(files)
    if data.is_dir() and (empty := image_sources.empty_classes(data, items)):
        held = image_sources.Folder(empty[0]).names()
        why = image_names.left_out(f"{empty[0].name}/{name}" for name in held)
        said = f" ({'; '.join(why)})" if why else ""
        raise DataError(f"{empty[0]}: a class folder without an image in it{said}; put some there, or remove it")
    found = Counter(str(item.label) for item in items)
    if len(found) == 1:
        raise DataError(f"{data}: one class alone, {next(iter(found))!r}; a folder for each of two or more is expected")
    return dict(sorted(found.items()))


def left_out(data: Path) -> list[str]:
    """Return lines on the files that class folders, or an archive of such, hold beside images; none for a table."""
    from slimline import image_sources

    return [] if image_sources.is_table(data) else image_sources.left_out(image_sources.store(data))


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


class _Answer(NamedTuple):
    """What labels are: one of ``labels``, many, or a number that is right within ``tolerance``."""

    kind: str
    labels: list[str]
    tolerance: float = 0.0
    separator: str = SEPARATORS[0]


class _Values:
    """What stands in a label column: how often, and where first. ``read`` says which file the next rows are from."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.read = Read()
        self._rows: dict[str, list[int]] = {}  # the first few, in the file where a value stands first
        self._here: Counter[str] = Counter()
        self._count = 0
        self._learnt: set[str] = set()  # stands in a training file, or in the only one
        self._numbers: dict[str, float] = {}
        self._written = tables.Numbers()
        self._unsure = ""  # a number with a decimal comma, or two labels

    def add(self, value: Any, part: str, table: tables.Table) -> None:
        """Note the value of the next row."""
        missing = value is None or (isinstance(value, float) and math.isnan(value))
        text = json.dumps(value, default=str) if isinstance(value, list) else "" if missing else str(value).strip()
        if text not in self.counts:
            number = labelled_rows.number(self._written.read(text, self._count, table.number))
            if number is not None:
                self._numbers[text] = number
                if labelled_rows.number(text) is None and not table.decimal_commas:
                    self._unsure = self._unsure or text
        rows = self._rows.setdefault(text, [self._count])
        if rows[0] >= self.read.starts[-1]:
            self._here[text] += 1
            if 1 < self._here[text] <= NAMED:
                rows.append(self._count)
        self._count += 1
        self.counts[text] += 1
        if part in {"", "train"}:
            self._learnt.add(text)

    def _where(self, value: str) -> str:
        """Return "FILE: rows N, M and 9 more (and 4 in other files)" of the rows that have a value."""
        return self.read.places(self._rows[value], self._here[value], self.counts[value])

    def answer(self, path: Path, label: str, kind: str | None, separator: str | None) -> _Answer:
        """Return what the labels are; ``kind`` and ``separator`` are None where that is to be found."""
        values, rows, column = self.counts, self.counts.total(), f"column {label!r}"
        if kind not in {None, *KINDS}:
            raise ParamsError(f"--answer: {kind!r} is not one of {', '.join(KINDS)}.{near_miss(str(kind), KINDS)}")
        if separator is not None and (not separator or kind not in {None, "many"}):
            raise ParamsError(f"--separator: {separator!r}: it stands between labels, where a row has many (--answer)")
        if not rows:
            raise DataError(f"{path}: no row in it")
        numbers = self._numbers
        marks = ["[", *([separator] if separator else SEPARATORS)]
        several = (value for value in values if value not in numbers and any(mark in value for mark in marks))
        if "" in values and kind != "many" and not any(several):
            raise DataError(f"{self._where('')}: {column}: empty; fill it in, or take the row out")
        all_numbers = len(numbers) == len(values)
        if all_numbers and self._unsure and kind is separator is None:
            raise ParamsError(
                f"{self._where(self._unsure)}: {column}: {self._unsure!r} is a number with a decimal comma, or two "
                "labels; say --answer number or --answer many"
            )
        fractions = any(number != int(number) for number in numbers.values())
        if kind == "number" or (kind is separator is None and all_numbers and (len(values) > FEW or fractions)):
            return self._as_number(numbers, column, fractions=fractions)
        too_many = len(values) > MANY or len(values) * 2 > rows
        if kind is separator is None:
            self._check_nearly_numbers(numbers, column, no_labels=too_many or fractions)
        separator, lists = self._separator(path, column, kind, separator)
        if separator is not None:
            parts = {value: self._parts(value, column, separator, lists=lists) for value in values}
            self._check_no_flags(parts, column)
            return _Answer("many", sorted(self._labels(parts, path, column)), separator=separator)
        if too_many:
            raise DataError(f"{path}: {column}: {len(values)} distinct values in {rows} rows are no labels")
        names = self._labels({value: [value] for value in values}, path, column)
        return _Answer("one", sorted(names, key=numbers.__getitem__ if all_numbers else str))

    def _check_nearly_numbers(self, numbers: Mapping[str, float], column: str, *, no_labels: bool) -> None:
        """Raise DataError for the first value that is no number where nearly all of many are.

        With ``no_labels`` these numbers can hardly be labels; else all the rest must be signs for what is missing.
        """
        wrong = [value for value in self.counts if value not in numbers]
        if not wrong or len(self.counts) <= FEW or len(numbers) < NEARLY * len(self.counts):
            return
        if no_labels or all(value.lower() in NO_VALUE for value in wrong):
            raise DataError(
                f"{self._where(wrong[0])}: {column}: {wrong[0]!r} is no number{_others(wrong)}, and {len(numbers):,} "
                f"of {len(self.counts):,} distinct values are; mend it, or take the row out, then --answer number "
                "(--answer one or many, if they are labels)"
            )

    def _as_number(self, numbers: Mapping[str, float], column: str, *, fractions: bool) -> _Answer:
        """Return a number, right within a tenth of the range, but a half at least where all are whole."""
        if "" in self.counts:
            raise DataError(f"{self._where('')}: {column}: empty; fill it in, or take the row out")
        if wrong := [value for value in self.counts if value not in numbers]:
            where = self._where(wrong[0])
            raise DataError(f"{where}: {column}: {wrong[0]!r} is no number{_others(wrong)}, and --answer asks for one")
        self._written.check(self.read.where, column)
        tenth = (max(numbers.values()) - min(numbers.values())) / 10
        if not tenth:
            raise DataError(f"{self.read.where(0)}: {column}: {next(iter(numbers))!r} in all rows")
        return _Answer("number", [], float(f"{tenth if fractions else max(tenth, 0.5):.2g}"))

    def _separator(self, path: Path, column: str, kind: str | None, given: str | None) -> tuple[str | None, bool]:
        """Return what stands between the labels of a row, None where it has one; and whether cells are lists.

        Several labels show where they recur: as parts there are fewer of them than there are values.
        """
        filled = [value for value in self.counts if value]
        if kind != "one" and all(value.startswith("[") for value in filled) and any(map(_is_list, filled)):
            return given or SEPARATORS[0], True
        if given is not None and not any(given in value for value in filled):
            raise DataError(f"{path}: {column}: no row has {given!r}, which --separator says")
        if kind == "one" or given is not None:
            return (None if kind == "one" else given), False
        splits = {mark: [_split(value, mark) for value in filled] for mark in SEPARATORS}
        several = {mark for mark, found in splits.items() if any(len(each) > 1 for each in found)}
        likely = [mark for mark in SEPARATORS if mark in several and len({*chain(*splits[mark])}) < len(self.counts)]
        if len(likely) > 1:
            raise DataError(f"{path}: {column}: {' or '.join(map(repr, likely))} between labels? Name it: --separator")
        if not likely and kind == "many":
            likely = sorted(several) if len(several) == 1 else [SEPARATORS[0]]
        return (likely[0] if likely else None), False

    def _parts(self, value: str, column: str, separator: str, *, lists: bool) -> list[str]:
        """Return the labels in a value. Raises DataError with its row where a list is broken."""
        if not value.startswith("[") or not (lists or _is_list(value)):
            return _split(value, separator)
        try:
            return [name for each in listed(value) if (name := each.strip())]
        except DataError as error:
            raise DataError(f"{self._where(value)}: {column}: {error}") from error

    def _check_no_flags(self, parts: Mapping[str, list[str]], column: str) -> None:
        """Raise DataError where rows have a 0 or 1 for each label in place of the labels that they have."""
        lengths = {len(names) for names in parts.values()}
        if len(lengths) == 1 and max(lengths) > 1 and FLAGS.issuperset(chain(*parts.values())):
            first = next(iter(parts))
            raise DataError(
                f"{self._where(first)}: {column}: {shorten(first, SHOWN, placeholder=' …')!r} has a 0 or 1 for "
                'each label; write the names of those that a row has: ["one", "two"]'
            )

    def _labels(self, parts: dict[str, list[str]], path: Path, column: str) -> list[str]:
        """Return the labels in ``parts`` {value: labels in it}; training rows must have all, two or more."""
        learnt = {name for value in self._learnt for name in parts[value]}
        unknown: dict[str, str] = {}
        for value, names in parts.items():
            for each in names:
                if each not in learnt:
                    unknown.setdefault(each, value)
        if unknown:
            name, *_ = unknown
            near = near_miss(name, sorted(learnt))
            raise DataError(
                f"{self._where(unknown[name])}: {column}: unknown label {name!r}{_others(unknown)}, which no row of "
                f"{path} has.{near}"
            )
        if len(learnt) < 2:
            only = next(iter(learnt), "")
            raise DataError(f"{path}: {column}: no label but {only!r} in {self.counts.total()} rows; two are needed")
        return list(learnt)


def _others(wrong: Collection[str]) -> str:
    return f" (and {len(wrong) - 1:,} more likewise)" if len(wrong) > 1 else ""


def _split(value: str, separator: str) -> list[str]:
    return [name for each in value.split(separator) if (name := each.strip())]


def _is_list(value: str) -> bool:
    try:
        listed(value)
    except DataError:
        return False
    return True
