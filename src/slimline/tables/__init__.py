"""Rows in and out of files, in bounded memory: CSV, TSV, JSONL, Parquet, images in a folder or archive. Needs no torch.

A reader yields batches ``{column: values}`` and knows which row a batch starts at; a writer takes such batches and
leaves a whole file or none. Parquet is read a row group at a time.
"""

from __future__ import annotations

from pathlib import Path

from slimline.errors import DataError
from slimline.own_data.image_stores import ARCHIVES
from slimline.tables.csv import Csv
from slimline.tables.images import PATH, PATHS, Images, path_column
from slimline.tables.json_lines import JsonLines
from slimline.tables.numbers import Numbers
from slimline.tables.parquet import Parquet
from slimline.tables.table import Columns, Table, check_columns, plain
from slimline.tables.writing import written

__all__ = ["PATH", "PATHS", "SUFFIXES", "Columns", "Numbers", "Table", "check_columns", "path_column", "plain", "read",
           "written"]  # fmt: skip
READERS: dict[str, type[Csv | JsonLines | Parquet]] = {
    ".csv": Csv, ".tsv": Csv, ".jsonl": JsonLines, ".parquet": Parquet,
}  # fmt: skip
SUFFIXES = tuple(READERS)


def read(path: Path) -> Table:
    """Open a .csv, .tsv, .jsonl or .parquet file, or images in a folder, zip or tar.

    Raises DataError naming what is wrong with it.
    """
    if path.is_dir() or (path.is_file() and path.name.lower().endswith(ARCHIVES)):
        return Images(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file or folder")
    if path.suffix.lower() not in READERS:
        hint = "; one JSON object a line makes a .jsonl" if path.suffix == ".json" else ""
        raise DataError(f"{path}: a folder of images, {', '.join((*READERS, *ARCHIVES))} is expected{hint}")
    return READERS[path.suffix.lower()](path)
