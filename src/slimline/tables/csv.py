"""CSV and TSV as they are written: by commas, semicolons or tabs, with or without a line ``sep=;``."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from slimline.errors import DataError
from slimline.tables.numbers import with_point
from slimline.tables.table import Columns, Table, batched
from slimline.tables.text import decoded

OTHERS = "\t|"  # what separates columns in files that are called .csv all the same
QUOTED = re.compile(rb'"[^"]*("|$)')
SAYS = re.compile(rb'(?:\xef\xbb\xbf)?"?sep=([\t -~])"?\s*', re.IGNORECASE)  # the line that Excel reads before a header
FIELD = 1 << 26  # letters of a value: Python's own bound, 131,072, is a few pages of text
csv.field_size_limit(max(csv.field_size_limit(), FIELD))


class Csv(Table):
    """A CSV or TSV file in UTF-8 with a header; every value is text. Work is counted in bytes."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._delimiter = _separator(file.readline(), path)
            file.seek(0)
            line, names = next(_lines(file, path), (1, []))
        _check_header(names, path, line)
        super().__init__(path, names, path.stat().st_size)

    def batches(self, size: int, names: Sequence[str] | None = None) -> Iterator[tuple[Columns, int]]:
        del names
        with self.path.open("rb") as raw:
            for rows in batched((row for _, row in islice(_lines(raw, self.path), 1, None)), size):
                columns = zip(self.names, zip(*rows, strict=True), strict=True)
                yield {name: list(values) for name, values in columns}, raw.tell()

    def rows(self) -> Iterator[tuple[str, dict[str, Any]]]:
        with self.path.open("rb") as raw:
            for line, row in islice(_lines(raw, self.path), 1, None):
                yield f"{self.path}: line {line}", dict(zip(self.names, row, strict=True))

    @property
    def decimal_commas(self) -> bool:
        return self._delimiter == ";"

    def number(self, cell: Any) -> Any:
        return with_point(cell, self._delimiter)


def _separator(first: bytes, path: Path) -> str:
    """Return what separates the columns of a .csv or .tsv: what its first line says if that is ``sep=;``.

    Without one, commas in a .csv; semicolons, as Excel writes where commas stand in numbers, if the header has these
    alone.
    """
    if said := SAYS.fullmatch(first):
        return said[1].decode()
    if path.suffix.lower() == ".tsv":
        return "\t"
    header = QUOTED.sub(b"", first)
    return ";" if b";" in header and b"," not in header else ","


def _lines(file: Any, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield (line that it ends on, row) of a file that is open for bytes, the header first.

    Raises DataError where a row isn't CSV, or has not as many values as the header.
    """
    first = file.readline()
    file.seek(0)
    rows = csv.reader(decoded(file, path), strict=True, delimiter=_separator(first, path))
    width = None
    try:
        if SAYS.fullmatch(first):
            next(rows)
        for row in rows:
            width = width or len(row)
            if len(row) != width:
                raise DataError(f"{path}: line {rows.line_num}: {len(row)} values, the header has {width}")
            yield rows.line_num, row
    except csv.Error as error:
        raise DataError(f"{path}: line {rows.line_num}: {error}") from error


def _check_header(names: Sequence[str], path: Path, line: int) -> None:
    where = f"{path}: line {line}"
    if not names:
        raise DataError(f"{where}: empty; a header with column names is expected")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise DataError(f"{where}: column {twice!r} stands there twice; a header with distinct names is expected")
    if path.suffix.lower() == ".csv" and len(names) == 1 and (other := set(OTHERS) & set(names[0])):
        raise DataError(
            f"{where}: one column, {names[0]!r}: {other.pop()!r} separates no columns in .csv; save it with commas or "
            "semicolons, or with tabs as .tsv"
        )
