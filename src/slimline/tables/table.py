"""What all readers are: columns by name, rows in batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from slimline.errors import DataError, near_miss
from slimline.own_data import image_stores

Row = TypeVar("Row")
BATCH = 1000
Columns = dict[str, Any]  # name: a list, or an Arrow array, which keeps its type on its way to another Parquet file


class Table:
    """A file or folder of rows. ``names``: its columns; ``total``: how many units of work ``batches`` reports."""

    def __init__(self, path: Path, names: Sequence[str], total: int) -> None:
        self.path, self.names, self.total = path, list(names), total

    def batches(self, size: int, names: Sequence[str] | None = None) -> Iterator[tuple[Columns, int]]:
        """Yield (columns of up to ``size`` rows, units of work done so far); ``names``: of these columns at least.

        Raises DataError where the file can't be read on, once the rows before that were yielded.
        """
        raise NotImplementedError

    def rows(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield (file and place of a row, {column: its value as a Python object}). Raises as ``batches`` does."""
        count = 0
        for batch, _ in self.batches(BATCH):
            for row in zip(*(plain(batch[name]) for name in self.names), strict=True):
                count += 1
                yield f"{self.path}: row {count}", dict(zip(self.names, row, strict=True))

    @property
    def decimal_commas(self) -> bool:
        """Whether a comma in a cell is hardly anything else: what separates columns isn't one for that reason."""
        return False

    def number(self, cell: Any) -> Any:
        """Return a cell that is to be a number as Python writes it, where the file may have decimal commas."""
        return cell

    def image(self, path: str) -> Path | bytes:
        """Return the image that a cell names: a file, or what is in it. Paths are relative to the table's folder."""
        return self.path.parent / image_stores.slashed(path)


def batched(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    """Yield so many rows at a time; where reading breaks, those before that first."""
    batch: list[Row] = []
    try:
        for row in rows:
            batch.append(row)
            if len(batch) == size:
                yield batch
                batch = []
    except DataError:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


def check_columns(table: Table, names: Iterable[str]) -> None:
    """Raise DataError for the first of ``names`` that is no column of ``table``."""
    for name in names:
        if name not in table.names:
            near = near_miss(name, table.names)
            raise DataError(f"{table.path}: no column {name!r}.{near} It has: {', '.join(table.names)}")


def plain(values: Any) -> list[Any]:
    """Return a column's values as Python objects."""
    return list(values.to_pylist() if hasattr(values, "to_pylist") else values)
