"""How numbers are spelt in files: decimal commas, points or commas between thousands."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from slimline.errors import DataError

DECIMAL_COMMA = re.compile(r"\s*[+-]?\d*,\d+\s*")
THOUSANDS = re.compile(r"\s*[+-]?[1-9]\d{0,2},\d{3}\s*")
POINTS_AND_COMMA = re.compile(r"\s*[+-]?[1-9]\d{0,2}(\.\d{3})+,\d+\s*")
POINTS = re.compile(r"\s*[+-]?[1-9]\d{0,2}(\.\d{3}){2,}\s*")
ONE_POINT = re.compile(r"\s*[+-]?[1-9]\d{0,2}\.\d{3}\s*")


def with_point(cell: Any, mark: str) -> Any:
    """Return a cell with a point for its decimal comma and none between thousands; other cells stay as they are.

    ``mark`` separates the columns: unless it is a semicolon, 1,200 stays, which may be a thousand.
    """
    if not isinstance(cell, str) or (mark != ";" and THOUSANDS.fullmatch(cell)):
        return cell
    if POINTS_AND_COMMA.fullmatch(cell) or (mark == ";" and POINTS.fullmatch(cell)):
        cell = cell.replace(".", "")
    return cell.replace(",", ".") if DECIMAL_COMMA.fullmatch(cell) else cell


class Numbers:
    """How the numbers of a column are written. Beside 3,5 the point of 1.234 may stand between thousands."""

    def __init__(self) -> None:
        self._comma: tuple[Any, str] | None = None  # the first row, and its cell, with a comma or points of thousands
        self._point: tuple[Any, str] | None = None

    def read(self, cell: Any, row: Any, convert: Callable[[Any], Any]) -> Any:
        """Return ``convert(cell)``, and note how the cell is written."""
        found = convert(cell)
        if found is not cell:
            self._comma = self._comma or (row, cell)
        elif isinstance(cell, str) and ONE_POINT.fullmatch(cell):
            self._point = self._point or (row, cell)
        return found

    def check(self, where: Callable[[Any], str], column: str) -> None:
        """Raise DataError where a point may be either; ``where(row)`` says where a row stands."""
        if self._point and self._comma:
            (row, cell), (other, comma) = self._point, self._comma
            whole = cell.strip().replace(".", "")
            raise DataError(
                f"{where(row)}: {column}: {cell!r} may be {whole} or have a decimal point, since {where(other)} has "
                f"{comma!r}; write {whole}, or {cell.strip()}0"
            )
