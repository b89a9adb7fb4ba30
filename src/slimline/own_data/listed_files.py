"""The files that a table of a user's data names, such as images beside it. Imports nothing heavy."""

from __future__ import annotations

from pathlib import Path

from slimline import tables
from slimline.errors import DataError
from slimline.file_index import FileIndex
from slimline.own_data.image_stores import slashed


def beside(table: Path, index: FileIndex) -> list[Path]:
    """Return the files that stand in a table's column of paths, relative to its folder, as far as they are there.

    ``index`` remembers what stands in an unchanged table. One that can't be read names none: the task says why.
    """
    try:
        names: list[str] = index.facts(table, named_files)
    except DataError:
        return []
    return [path for path in map(table.parent.joinpath, names) if path.is_file()]


def named_files(table: Path) -> list[str]:
    """Return what stands in a table's column of paths, each once."""
    opened = tables.read(table)
    column = tables.path_column(opened.names)
    if column not in opened.names:
        return []
    values = (value for batch, _ in opened.batches(1000) for value in tables.plain(batch[column]))
    return list(dict.fromkeys(slashed(value) for value in values if isinstance(value, str) and value))
