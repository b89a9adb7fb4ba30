"""Rows of a user's own files: which columns, which split, which group; mistakes by file and row."""

from __future__ import annotations

import ast
import json
import math
from bisect import bisect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import shorten
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from slimline import tables
from slimline.errors import DataError, near_miss
from slimline.own_data import splitting

BATCH = 1000
PARTS = {"train": "train", "training": "train", "validation": "validation", "valid": "validation",
         "val": "validation", "dev": "validation", "eval": "validation", "calibration": "calibration", "test": "test",
         "testing": "test", "holdout": "test"}  # fmt: skip
SAID = "train, validation, calibration or test"
CALIBRATION = 512
FEW = 3  # wrong rows that are named
MOST = 1000  # mistakes after which reading stops
SHOWN = 40
T = TypeVar("T")


def listed(cell: str) -> list[str]:
    """Return the labels in a cell that starts with a bracket: a JSON list, or Python's own as pandas writes it.

    Raises DataError where it is neither.
    """
    try:
        found = json.loads(cell)
    except ValueError:
        try:
            found = ast.literal_eval(cell)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            found = None
    if not isinstance(found, list) or any(isinstance(each, list | dict | tuple | set) for each in found):
        raise DataError(f'{shorten(cell, SHOWN, placeholder=" …")!r} is no list of labels; ["one", "two"] is one')
    return ["" if each is None else str(each) for each in found]


def group_of(cell: Any) -> str:
    """Return the group that a cell names, "" where it is blank: no text, null, or not a number."""
    missing = cell is None or (isinstance(cell, float) and math.isnan(cell))
    return "" if missing or not str(cell).strip() else str(cell)


def _group_codes(groups: Sequence[str]) -> NDArray[np.int64]:
    """Return a number for each group; a row without one is a group of its own."""
    names, codes = np.unique(np.array(groups), return_inverse=True)
    codes = codes.reshape(-1).astype(np.int64)
    alone = np.flatnonzero(np.array(groups) == "")
    codes[alone] = len(names) + np.arange(len(alone))
    return codes


@dataclass(frozen=True)
class Source:
    """Where rows come from: one file, or {train: file, test: file, validation: file}.

    ``split`` is a column that says train, validation, calibration or test; ``group`` one whose equal values never
    straddle splits; a blank one is no group.
    """

    data: str | Mapping[str, str]
    split: str | None = None
    group: str | None = None

    def files(self) -> dict[str, Path]:
        """Return {part or "": file}. Raises DataError for a part that isn't one."""
        if isinstance(self.data, str):
            return {"": Path(self.data)}
        for part in self.data:
            if part not in PARTS:
                raise DataError(
                    f"task.args.data.{part}: no part of the data.{near_miss(part, list(PARTS))} "
                    "Parts: train, validation, calibration, test"
                )
        return {PARTS[part]: Path(path) for part, path in self.data.items()}


@dataclass
class Read:
    """What was read of all rows: file and number of each, its fixed part and its group ("" is none).

    ``names`` are those of rows that are told by a name, all or none.
    """

    files: list[Path] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)

    def where(self, row: int) -> str:
        """Return "FILE: row N" of a row, counted from 1 in its own file, or "FILE: NAME" where rows have names."""
        return self.places([row], 1, 1)

    def places(self, rows: Sequence[int], here: int, total: int) -> str:
        """Return "FILE: rows N, M and 9 more (and 4 in other files)" of ``total`` rows in order.

        ``rows`` are the first few of those that stand in the first one's file, ``here`` in all.
        """
        others = f" (and {total - here:,} in other files)" if here < total else ""
        if self.names:
            return f"{self.files[0]}: {enumerated([self.names[row] for row in rows[:FEW]], here)}{others}"
        at = self._file_of(rows[0])
        return numbered(self.files[at], [row - self.starts[at] + 1 for row in rows[:FEW]], here) + others

    def beside(self, row: int, rows: Sequence[int]) -> list[int]:
        """Return those of ``rows`` that stand in the file of ``row``."""
        return [each for each in rows if self._file_of(each) == self._file_of(row)]

    def _file_of(self, row: int) -> int:
        return bisect(self.starts, row) - 1


def number(text: str) -> float | None:
    """Return the number that a text is, None where it is none, or not finite."""
    try:
        found = float(text)
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def position(text: str) -> int | None:
    """Return the whole number from 0 that a text is, 1.0 as 1; None where it is none."""
    found = number(text)
    return int(found) if found is not None and found >= 0 and found.is_integer() else None


def numbered(path: Path, rows: Sequence[int], total: int) -> str:
    """Return "FILE: rows N, M and 9 more" of ``total`` rows, of which ``rows`` are the first few."""
    return f"{path}: {'row' if total == 1 else 'rows'} {enumerated(rows, total)}"


def enumerated(found: Sequence[Any], total: int) -> str:
    """Return "A, B and 9 more" of ``total`` things, of which ``found`` are the first few."""
    shown = [str(each) for each in found[:FEW]]
    last = f"{total - len(shown):,} more" if total > len(shown) else shown.pop()
    return f"{', '.join(shown)} and {last}" if shown else last


class WrongRowsError(DataError):
    """Some rows of a batch can't be used: ``wrong`` says why, by their place in it."""

    def __init__(self, wrong: Mapping[int, str]) -> None:
        super().__init__(next(iter(wrong.values())))
        self.wrong = wrong


class Mistakes:
    """The wrong rows of one reading, told in one line when it is over, or when there are ``MOST``."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._rows: dict[str, list[int]] = {}

    def __bool__(self) -> bool:
        return bool(self._rows)

    def note(self, row: int, what: str) -> None:
        """Note what is wrong with a row."""
        self._rows.setdefault(what, []).append(row)
        if sum(map(len, self._rows.values())) == MOST:
            self.tell(f"; {MOST:,} mistakes, where reading stopped")

    def over(self, batches: Iterator[T]) -> Iterator[T]:
        """Yield from what reads the rows; where it breaks, tell what was wrong before that too."""
        try:
            yield from batches
        except DataError as error:
            self.tell(f"; then {error}")
            raise

    def tell(self, end: str = "") -> None:
        """Raise DataError where rows are wrong: which have the first one's mistake, and how many have others."""
        if not self._rows:
            return
        (what, rows), *others = self._rows.items()
        if others:
            count = sum(len(each) for _, each in others)
            another, (place, *_) = others[0]
            told = f"{count:,} other {'mistake' if count == 1 else 'mistakes'}, such as"
            end = f" ({told} {self._read.where(place)}: {another}){end}"
        here = self._read.beside(rows[0], rows)
        raise DataError(f"{self._read.places(here, len(here), len(rows))}: {what}{end}")


def batches(
    source: Source, wanted: Sequence[str], read: Read, numbers: Sequence[str] = ()
) -> Iterator[tuple[int, dict[str, list[Any]]]]:
    """Yield (number of the first row, {column: values}) over all files, and note in ``read`` where rows belong.

    ``numbers`` are columns of such, which may have decimal commas.
    Raises DataError for a missing file or column, an unknown part in the split column, and points that may be either.
    """
    columns = list(dict.fromkeys([*wanted, *(each for each in (source.split, source.group) if each)]))
    written = {name: tables.Numbers() for name in numbers}
    for part, path in source.files().items():
        table = tables.read(path)
        tables.check_columns(table, columns)
        read.files.append(path)
        read.starts.append(len(read.parts))
        for batch, _ in table.batches(BATCH, columns):
            first = len(read.parts)
            found = {name: tables.plain(batch[name]) for name in columns}
            for name, how in written.items():
                found[name] = [how.read(each, first + at, table.number) for at, each in enumerate(found[name])]
            rows = len(found[columns[0]])
            said = [part] * rows
            if source.split:
                said = [PARTS.get(str(value).strip().lower(), "") for value in found[source.split]]
            right = said.index("") if source.split and "" in said else rows
            read.parts += said
            if source.group:
                read.groups += map(group_of, found[source.group])
            if right:
                yield first, {name: values[:right] for name, values in found.items()}
            for name, how in written.items():
                how.check(read.where, f"column {name!r}")
            if source.split and right < rows:
                wrong = found[source.split][right]
                raise DataError(
                    f"{read.where(first + right)}: column {source.split!r}: {wrong!r} is no split; it says {SAID}"
                )
        if len(read.parts) == read.starts[-1]:
            raise DataError(f"{path}: no row in it")


def parts(
    read: Read, strata: NDArray[np.int64], same: NDArray[np.int64], shares: Mapping[str, float], seed: int
) -> tuple[dict[str, NDArray[np.int64]], list[str]]:
    """Return the rows of train, validation, calibration and test, and notes on what was left out.

    What files and the split column fix stays; the rest is dealt by ``shares`` {validation, test}, and at most
    ``CALIBRATION`` rows (a tenth) of the training rows calibrate. ``same`` are numbers of equal inputs: with groups
    they stay together, and a row that would straddle fixed parts is left out of the earlier one, test last.
    """
    codes = [same]
    if read.groups:
        codes.append(_group_codes(read.groups))
    groups = splitting.joined(*codes)
    fixed = np.array(read.parts)
    kept = np.ones(len(fixed), bool)
    for part, later in (("train", ("validation", "calibration", "test")), ("calibration", ("validation", "test")),
                        ("validation", ("test",)), ("", ("validation", "calibration", "test"))):  # fmt: skip
        kept &= ~((fixed == part) & np.isin(groups, groups[np.isin(fixed, later)]))
    left_out = int((~kept).sum())
    notes = [f"{left_out:,} rows left out: the same input, or its group, stands in a later split"] if left_out else []
    found = {
        part: np.flatnonzero(kept & (fixed == part)) for part in ("", "train", "validation", "calibration", "test")
    }
    free = found.pop("")
    if not len(found["train"]):
        found["train"] = free
    elif len(free):
        found["train"] = np.sort(np.concatenate([found["train"], free]))
    total = len(found["train"])
    wanted = {part: share * total for part, share in shares.items() if not len(found[part])}
    if not len(found["calibration"]):
        wanted["calibration"] = min(CALIBRATION, total / 10)
    if wanted and total:
        rest = {"train": total - sum(wanted.values()), **wanted}
        rows = found["train"]
        dealt = splitting.deal(strata[rows], groups[rows], rest, seed)
        found |= {part: rows[at] for part, at in dealt.items()}
    for part, rows in found.items():
        if not len(rows):
            distinct = len(np.unique(groups))
            alike = f"with {distinct:,} distinct inputs or groups, which stay together" if distinct < len(fixed) else ""
            why = "; ".join([f"{len(fixed):,} in all{alike and ', '}{alike}", *notes])
            raise DataError(f"{read.files[0]}: too few rows: none is left for {part} ({why})")
    return found, notes
