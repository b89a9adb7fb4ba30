"""What the labels of a column are, by all its values: one of some, any of some, or a number."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Collection, Mapping
from itertools import chain
from pathlib import Path
from textwrap import shorten
from typing import Any, NamedTuple
from unicodedata import category

from slimline import tables
from slimline.errors import DataError, ParamsError, near_miss
from slimline.own_data import labelled_rows
from slimline.own_data.labelled_rows import FEW as NAMED
from slimline.own_data.labelled_rows import Read, listed

KINDS = ["one", "many", "number"]
SEPARATORS = (",", ";", "|")  # between labels in one cell
FEW = 20  # so many distinct whole numbers can be labels
NEARLY = 0.95  # so large a share of numbers, and the rest are mistakes
FLAGS = {"0", "1", "0.0", "1.0", "False", "True", "false", "true"}
NO_VALUE = {"nan", "n/a", "na", "null", "none", "nil", "-", "--", "?", "inf", "-inf"}
MANY = 1000  # so many distinct values are no list of labels
SHOWN = 40  # letters of a value


class Answer(NamedTuple):
    """What labels are: one of ``labels``, many, or a number that is right within ``tolerance``."""

    kind: str
    labels: list[str]
    tolerance: float = 0.0
    separator: str = SEPARATORS[0]


class Values:
    """What stands in a label column: how often, and where first. ``read`` says which file the next rows are from."""

    def __init__(self, label: str) -> None:
        self._column = f"column {label!r}"
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
        """Note the value of the next row. Raises DataError with its row where it can be no label."""
        if not _is_label(value):
            shown = shorten(repr(value), SHOWN, placeholder=" …")
            raise DataError(
                f"{self.read.where(self._count)}: {self._column}: {shown} is no label; a text, a number, or a list "
                "of them is expected"
            )
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
        """Return "FILE: rows N, M and 9 more (and 4 in other files): column 'C'" of the rows that have a value."""
        places = self.read.places(self._rows[value], self._here[value], self.counts[value])
        return f"{places}: {self._column}"

    def answer(self, path: Path, kind: str | None, separator: str | None) -> Answer:
        """Return what the labels are; ``kind`` and ``separator`` are None where that is to be found."""
        values, rows = self.counts, self.counts.total()
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
            raise DataError(f"{self._where('')}: empty; fill it in, or take the row out")
        all_numbers = len(numbers) == len(values)
        if all_numbers and self._unsure and kind is separator is None:
            raise ParamsError(
                f"{self._where(self._unsure)}: {self._unsure!r} is a number with a decimal comma, or two "
                "labels; say --answer number or --answer many"
            )
        fractions = any(number != int(number) for number in numbers.values())
        if kind == "number" or (kind is separator is None and all_numbers and (len(values) > FEW or fractions)):
            return self._as_number(numbers, fractions=fractions)
        too_many = len(values) > MANY or len(values) * 2 > rows
        if kind is separator is None:
            self._check_nearly_numbers(numbers, no_labels=too_many or fractions)
        separator, lists = self._separator(path, kind, separator)
        if separator is not None:
            parts = {value: self._parts(value, separator, lists=lists) for value in values}
            self._check_no_flags(parts)
            return Answer("many", sorted(self._labels(parts, path)), separator=separator)
        if too_many:
            raise DataError(f"{path}: {self._column}: {len(values)} distinct values in {rows} rows are no labels")
        names = self._labels({value: [value] for value in values}, path)
        return Answer("one", sorted(names, key=numbers.__getitem__ if all_numbers else str))

    def _check_nearly_numbers(self, numbers: Mapping[str, float], *, no_labels: bool) -> None:
        """Raise DataError for the first value that is no number where nearly all of many are, or all with one unit.

        With ``no_labels`` these numbers can hardly be labels; else all the rest must be signs for what is missing.
        """
        wrong = [value for value in self.counts if value not in numbers]
        if len(wrong) > FEW and (unit := _unit(wrong)):
            raise DataError(
                f"{self._where(wrong[0])}: {wrong[0]!r}{_others(wrong)} is a number with {unit!r}; write numbers alone"
            )
        if not wrong or len(self.counts) <= FEW or len(numbers) < NEARLY * len(self.counts):
            return
        if no_labels or all(value.lower() in NO_VALUE for value in wrong):
            raise DataError(
                f"{self._where(wrong[0])}: {wrong[0]!r} is no number{_others(wrong)}, and {len(numbers):,} "
                f"of {len(self.counts):,} distinct values are; mend it, or take the row out, then --answer number "
                "(--answer one or many, if they are labels)"
            )

    def _as_number(self, numbers: Mapping[str, float], *, fractions: bool) -> Answer:
        """Return a number, right within a tenth of the range, but a half at least where all are whole."""
        if "" in self.counts:
            raise DataError(f"{self._where('')}: empty; fill it in, or take the row out")
        if wrong := [value for value in self.counts if value not in numbers]:
            where = self._where(wrong[0])
            raise DataError(f"{where}: {wrong[0]!r} is no number{_others(wrong)}, and --answer asks for one")
        self._written.check(self.read.where, self._column)
        tenth = (max(numbers.values()) - min(numbers.values())) / 10
        if not tenth:
            raise DataError(f"{self.read.where(0)}: {self._column}: {next(iter(numbers))!r} in all rows")
        return Answer("number", [], float(f"{tenth if fractions else max(tenth, 0.5):.2g}"))

    def _separator(self, path: Path, kind: str | None, given: str | None) -> tuple[str | None, bool]:
        """Return what stands between the labels of a row, None where it has one; and whether cells are lists.

        Several labels show where they recur: as parts there are fewer of them than there are values.
        """
        filled = [value for value in self.counts if value]
        if kind != "one" and all(value.startswith("[") for value in filled) and any(map(_is_list, filled)):
            return given or SEPARATORS[0], True
        if given is not None and not any(given in value for value in filled):
            raise DataError(f"{path}: {self._column}: no row has {given!r}, which --separator says")
        if kind == "one" or given is not None:
            return (None if kind == "one" else given), False
        splits = {mark: [_split(value, mark) for value in filled] for mark in SEPARATORS}
        several = {mark for mark, found in splits.items() if any(len(each) > 1 for each in found)}
        likely = [mark for mark in SEPARATORS if mark in several and len({*chain(*splits[mark])}) < len(self.counts)]
        if len(likely) > 1:
            raise DataError(
                f"{path}: {self._column}: {' or '.join(map(repr, likely))} between labels? Name it: --separator"
            )
        if not likely and kind == "many":
            likely = sorted(several) if len(several) == 1 else [SEPARATORS[0]]
        return (likely[0] if likely else None), False

    def _parts(self, value: str, separator: str, *, lists: bool) -> list[str]:
        """Return the labels in a value. Raises DataError with its row where a list is broken."""
        if not value.startswith("[") or not (lists or _is_list(value)):
            return _split(value, separator)
        try:
            return [name for each in listed(value) if (name := each.strip())]
        except DataError as error:
            raise DataError(f"{self._where(value)}: {error}") from error

    def _check_no_flags(self, parts: Mapping[str, list[str]]) -> None:
        """Raise DataError where rows have a 0 or 1 for each label in place of the labels that they have."""
        lengths = {len(names) for names in parts.values()}
        if len(lengths) == 1 and max(lengths) > 1 and FLAGS.issuperset(chain(*parts.values())):
            first = next(iter(parts))
            raise DataError(
                f"{self._where(first)}: {shorten(first, SHOWN, placeholder=' …')!r} has a 0 or 1 for "
                'each label; write the names of those that a row has: ["one", "two"]'
            )

    def _labels(self, parts: dict[str, list[str]], path: Path) -> list[str]:
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
                f"{self._where(unknown[name])}: unknown label {name!r}{_others(unknown)}, which no row of "
                f"{path} has.{near}"
            )
        if len(learnt) < 2:
            only = next(iter(learnt), "")
            raise DataError(
                f"{path}: {self._column}: no label but {only!r} in {self.counts.total()} rows; two are needed"
            )
        return list(learnt)


def _others(wrong: Collection[str]) -> str:
    return f" (and {len(wrong) - 1:,} more likewise)" if len(wrong) > 1 else ""


def _unit(values: Collection[str]) -> str:
    """Return the sign, of a currency or of percent, that all values have before or behind a number, or nothing."""
    ends = {value[at] for value in values if value for at in (0, -1)}
    signs = {each for each in ends if each in "%‰" or category(each) == "Sc"}
    bare = "|".join(map(re.escape, signs))
    number = re.compile(rf"({bare})?\s*[+-]?\d[\d.,']*\s*({bare})?")
    return next(iter(signs)) if len(signs) == 1 and all(map(number.fullmatch, values)) else ""


def _split(value: str, separator: str) -> list[str]:
    return [name for each in value.split(separator) if (name := each.strip())]


def _is_label(value: Any) -> bool:
    inner = value if isinstance(value, list) else [value]
    return not any(isinstance(each, bytes | dict | list) for each in inner)


def _is_list(value: str) -> bool:
    try:
        listed(value)
    except DataError:
        return False
    return True
