"""Parquet, by pyarrow, which comes with an extra."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from slimline.errors import DataError
from slimline.tables.table import Columns, Table


class Parquet(Table):
    """A Parquet file, read a row group at a time."""

    def __init__(self, path: Path) -> None:
        parquet = library(path)
        try:
            with parquet.ParquetFile(path) as file:
                names, total = file.schema_arrow.names, file.metadata.num_rows
        except Exception as error:  # pyarrow raises several classes of its own
            raise DataError(f"{path}: not a Parquet file that can be read: {' '.join(str(error).split())}") from error
        super().__init__(path, names, total)

    def batches(self, size: int, names: Sequence[str] | None = None) -> Iterator[tuple[Columns, int]]:
        del names
        done = 0
        with library(self.path).ParquetFile(self.path, pre_buffer=False) as file:
            try:
                for batch in file.iter_batches(batch_size=size):
                    sound, damage = _sound(batch, self.path, done)
                    done += sound
                    if sound:
                        yield dict(zip(batch.schema.names, batch.slice(0, sound).columns, strict=True)), done
                    if damage:
                        raise DataError(damage)
            except (OSError, ValueError, NotImplementedError) as error:
                raise DataError(f"{self.path}: damaged after row {done}: {' '.join(str(error).split())}") from error


def _sound(batch: Any, path: Path, first: int) -> tuple[int, str]:
    """Return how many rows of a batch there are before text that isn't UTF-8, which Parquet doesn't check, and a line
    that says where, "" where all is well; ``first`` rows stand before the batch.
    """
    try:
        batch.validate(full=True)
    except ValueError as damage:
        found = [(batch.num_rows, f"{path}: damaged after row {first}: {' '.join(str(damage).split())}")]
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            for at, value in enumerate(column):
                try:
                    value.as_py()
                except UnicodeDecodeError as error:
                    where = f"{path}: row {first + at + 1}: column {name!r}"
                    found.append((at, f"{where}: not UTF-8 ({error.reason} at byte {error.start})"))
                    break
        return found[0] if len(found) == 1 else min(found[1:])
    return batch.num_rows, ""


def library(path: Path) -> Any:
    """Return ``pyarrow.parquet``. Raises DataError, naming the file that asks for it, where it isn't installed."""
    try:
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise DataError(f"{path}: pyarrow is not installed: pip install 'slimline[parquet]'") from error
    return pyarrow.parquet
