"""Writes batches of rows to CSV or Parquet: a whole file or none."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from slimline import manifest
from slimline.errors import DataError
from slimline.tables import parquet as parquet_files
from slimline.tables.table import plain


@contextmanager
def written(path: Path) -> Iterator[Callable[[Mapping[str, Sequence[Any]]], None]]:
    """Yield a function that takes batches {column: values}; the file appears when the block ends well."""
    if path.suffix not in {".csv", ".parquet"}:
        raise DataError(f"{path}: .csv or .parquet is expected")
    if not path.parent.is_dir():
        raise DataError(f"{path.parent}: no such folder to write {path.name} into")
    if path.suffix == ".parquet":
        parquet_files.library(path)  # if it isn't there, the message names the file that was asked for
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with _writer(scratch, path) as write:
            yield write
        with scratch.open("rb") as file:
            os.fsync(file.fileno())
        scratch.replace(path)
        manifest.fsync_folder(path.parent)
    except OSError as error:
        raise manifest.told(error, path) from error
    finally:
        scratch.unlink(missing_ok=True)


@contextmanager
def _writer(scratch: Path, path: Path) -> Iterator[Callable[[Mapping[str, Sequence[Any]]], None]]:
    if path.suffix == ".csv":
        with scratch.open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file)

            def write_rows(batch: Mapping[str, Sequence[Any]]) -> None:
                if not file.tell():
                    rows.writerow(batch)
                rows.writerows(zip(*map(plain, batch.values()), strict=True))

            yield write_rows
        return
    parquet = parquet_files.library(path)
    import pyarrow as pa

    writers: list[Any] = []  # the first batch decides the columns' types

    def write_batch(batch: Mapping[str, Sequence[Any]]) -> None:
        try:
            table = pa.table(dict(batch), schema=writers[0].schema if writers else None)
        except pa.ArrowException as error:
            told = " ".join(str(error).split())
            raise DataError(f"{path}: a column's values are of several types ({told}); write .csv") from error
        if not writers:
            writers.append(parquet.ParquetWriter(scratch, table.schema))
        writers[0].write_table(table)

    try:
        yield write_batch
    finally:
        for each in writers:
            each.close()
