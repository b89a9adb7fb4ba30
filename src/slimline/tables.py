"""Rows in and out of files, in bounded memory: CSV, TSV, JSONL, Parquet, images in a folder or archive. Needs no torch.

A reader yields batches ``{column: values}`` and knows which row a batch starts at; a writer takes such batches and
leaves a whole file or none. Parquet is read a row group at a time.
"""

from __future__ import annotations

import codecs
import csv
import json
import os
import re
import shlex
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from slimline import image_names, manifest
from slimline.errors import DataError, near_miss

Row = TypeVar("Row")
Columns = dict[str, Any]  # name: a list, or an Arrow array, which keeps its type on its way to another Parquet file
SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.xz", ".tar.bz2")
OTHERS = "\t|"  # what separates columns in files that are called .csv all the same
QUOTED = re.compile(rb'"[^"]*("|$)')
SAYS = re.compile(rb'(?:\xef\xbb\xbf)?"?sep=([\t -~])"?\s*', re.IGNORECASE)  # the line that Excel reads before a header
DECIMAL_COMMA = re.compile(r"\s*[+-]?\d*,\d+\s*")
THOUSANDS = re.compile(r"\s*[+-]?[1-9]\d{0,2},\d{3}\s*")
POINTS_AND_COMMA = re.compile(r"\s*[+-]?[1-9]\d{0,2}(\.\d{3})+,\d+\s*")
POINTS = re.compile(r"\s*[+-]?[1-9]\d{0,2}(\.\d{3}){2,}\s*")
ONE_POINT = re.compile(r"\s*[+-]?[1-9]\d{0,2}\.\d{3}\s*")
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
PATHS = ("path", "file_name", "filepath", "filename", "image", "img")  # of images; Hugging Face's folders say file_name
PATH = PATHS[0]
FIELD = 1 << 26  # letters of a value: Python's own bound, 131,072, is a few pages of text
csv.field_size_limit(max(csv.field_size_limit(), FIELD))


def path_column(names: Sequence[str]) -> str:
    """Return the column that names images' files: the first of ``PATHS`` that is there, ``path`` where none is."""
    return next((each for each in PATHS if each in names), PATH)


class Table:
    """A file or folder of rows. ``names``: its columns; ``total``: how many units of work ``batches`` reports."""

    def __init__(self, path: Path, names: Sequence[str], total: int) -> None:
        self.path, self.names, self.total = path, list(names), total

    def batches(self, size: int, names: Sequence[str] | None = None) -> Iterator[tuple[Columns, int]]:
        """Yield (columns of up to ``size`` rows, units of work done so far); ``names``: of these columns at least.

        Raises DataError where the file can't be read on, once the rows before that were yielded.
        """
        raise NotImplementedError

    @property
    def decimal_commas(self) -> bool:
        """Whether a comma in a cell is hardly anything else: what separates columns isn't one for that reason."""
        return False

    def number(self, cell: Any) -> Any:
        """Return a cell that is to be a number as Python writes it, where the file may have decimal commas."""
        return cell

    def image(self, path: str) -> Path | bytes:
        """Return the image that a cell names: a file, or what is in it. Paths are relative to the table's folder."""
        return self.path.parent / path


class _Images(Table):
    """Images by name, in the order of ``files``; one column ``path``."""

    def __init__(self, path: Path, files: list[str]) -> None:
        if not files:
            raise DataError(f"{path}: no image in it, by the suffixes of the formats that Pillow reads")
        self._files = files
        super().__init__(path, [PATH], len(files))

    def batches(self, size: int, names: Sequence[str] | None = None) -> Iterator[tuple[Columns, int]]:
        del names
        for start in range(0, self.total, size):
            files = self._files[start : start + size]
            yield {PATH: list(files)}, start + len(files)


class _Folder(_Images):
    """The images under a folder, sorted by path, relative to the folder."""

    def __init__(self, path: Path) -> None:
        found = (each for each in path.rglob("*") if image_names.is_image(each.name) and each.is_file())
        names = (each.relative_to(path).as_posix() for each in found)
        super().__init__(path, sorted(name for name in names if not image_names.is_hidden(name)))

    def image(self, path: str) -> Path | bytes:
        return self.path / path


class _Archive(_Images):
    """The images in a zip or tar, in the order in which they lie there, by their name in it."""

    def __init__(self, path: Path) -> None:
        from slimline import image_sources

        self._store = image_sources.Archive(path)
        names = (name for name in self._store.names() if image_names.is_image(name))
        super().__init__(path, [name for name in names if not image_names.is_hidden(name)])

    def image(self, path: str) -> Path | bytes:
        try:
            return self._store.read(path)
        except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, tarfile.TarError, zlib.error) as error:
            raise DataError(f"can't be read from the archive: {error}") from error


class _Csv(Table):
    """A CSV or TSV file in UTF-8 with a header; every value is text. Work is counted in bytes."""

    def __init__(self, path: Path) -> None:
        self._delimiter = delimiter(path)
        with path.open("rb") as file:
            rows = csv_rows(file, path)
            try:
                names: list[str] = next(rows, [])
            except csv.Error as error:
                raise DataError(f"{path}: line {rows.line_num}: {error}") from error
        _check_header(names, path, max(rows.line_num, 1))
        super().__init__(path, names, path.stat().st_size)

    def batches(self, size: int, names: Sequence[str] | None = None) -> Iterator[tuple[Columns, int]]:
        del names
        with self.path.open("rb") as raw:
            for rows in _batched(self._rows(raw), size):
                columns = zip(self.names, zip(*rows, strict=True), strict=True)
                yield {name: list(values) for name, values in columns}, raw.tell()

    def _rows(self, raw: Any) -> Iterator[list[str]]:
        rows = csv_rows(raw, self.path)
        next(rows)
        try:
            for row in rows:
                if len(row) == len(self.names):
                    yield row
                    continue
                where = f"{self.path}: line {rows.line_num}"
                raise DataError(f"{where}: {len(row)} values, the header has {len(self.names)}")
        except csv.Error as error:
            raise DataError(f"{self.path}: line {rows.line_num}: {error}") from error

    @property
    def decimal_commas(self) -> bool:
        return self._delimiter == ";"

    def number(self, cell: Any) -> Any:
        return with_point(cell, self._delimiter)


def _batched(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
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


def delimiter(path: Path) -> str:
    """Return what separates the columns of a .csv or .tsv: what a first line ``sep=;`` says.

    Without one, commas in a .csv; semicolons, as Excel writes where commas stand in numbers, if the header has these
    alone.
    """
    with path.open("rb") as file:
        return _separator(file.readline(), path)


def _separator(first: bytes, path: Path) -> str:
    if said := SAYS.fullmatch(first):
        return said[1].decode()
    if path.suffix.lower() == ".tsv":
        return "\t"
    header = QUOTED.sub(b"", first)
    return ";" if b";" in header and b"," not in header else ","


def csv_rows(file: Any, path: Path) -> Any:
    """Return a csv.reader of a .csv or .tsv that is open for bytes; its first row is the header."""
    first = file.readline()
    file.seek(0)
    rows = csv.reader(decoded(file, path), strict=True, delimiter=_separator(first, path))
    if SAYS.fullmatch(first):
        next(rows)
    return rows


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


def check_columns(table: Table, names: Iterable[str]) -> None:
    """Raise DataError for the first of ``names`` that is no column of ``table``."""
    for name in names:
        if name not in table.names:
            near = near_miss(name, table.names)
            raise DataError(f"{table.path}: no column {name!r}.{near} It has: {', '.join(table.names)}")


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


def decoded(file: Any, path: Path) -> Iterator[str]:
    """Yield the lines of a file that is open for bytes. Raises DataError where they aren't UTF-8."""
    for number, line in enumerate(file, 1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            likely = "UTF-16" if number == 1 and line.startswith(UTF_16) else "WINDOWS-1252"
            files = shlex.quote(path.name), shlex.quote(path.with_suffix(f".utf8{path.suffix}").name)
            raise DataError(
                f"{path}: line {number}: not UTF-8 ({error.reason} at byte {error.start}); was it saved as {likely}? "
                f"iconv -f {likely} -t UTF-8 {files[0]} > {files[1]}"
            ) from error


class _JsonLines(Table):
    """A file of one JSON object a line, all with the keys of the first. Work is counted in bytes."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            first = next((_object(line, path, number) for number, line in _lines(file, path)), None)
        if not first:
            raise DataError(f"{path}: line 1: a JSON object with a key for each column is expected")
        super().__init__(path, list(first), path.stat().st_size)

    def batches(self, size: int, names: Sequence[str] | None = None) -> Iterator[tuple[Columns, int]]:
        used = self.names if names is None else list(names)
        with self.path.open("rb") as raw:
            for rows in _batched(self._objects(raw, used), size):
                yield {name: [each[name] for each in rows] for name in used}, raw.tell()

    def _objects(self, raw: Any, used: Sequence[str]) -> Iterator[dict[str, Any]]:
        for number, line in _lines(raw, self.path):
            found = _object(line, self.path, number)
            if missing := [name for name in used if name not in found]:
                raise DataError(f"{self.path}: line {number}: no key {missing[0]!r}, which line 1 has")
            yield found


def _lines(file: Any, path: Path) -> Iterator[tuple[int, str]]:
    """Yield (number, line) of the lines that aren't empty."""
    yield from ((number, line) for number, line in enumerate(decoded(file, path), 1) if line.strip())


def _object(line: str, path: Path, number: int) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError as error:
        raise DataError(f"{path}: line {number}: not JSON: {error}") from error
    if not isinstance(found, dict):
        raise DataError(f"{path}: line {number}: a JSON object is expected, found {type(found).__name__}")
    return found


class _Parquet(Table):
    """A Parquet file, read a row group at a time."""

    def __init__(self, path: Path) -> None:
        parquet = _pyarrow(path)
        try:
            with parquet.ParquetFile(path) as file:
                names, total = file.schema_arrow.names, file.metadata.num_rows
        except Exception as error:  # pyarrow raises several classes of its own
            raise DataError(f"{path}: not a Parquet file that can be read: {' '.join(str(error).split())}") from error
        super().__init__(path, names, total)

    def batches(self, size: int, names: Sequence[str] | None = None) -> Iterator[tuple[Columns, int]]:
        del names
        done = 0
        with _pyarrow(self.path).ParquetFile(self.path, pre_buffer=False) as file:
            try:
                for batch in file.iter_batches(batch_size=size):
                    sound, damage = _sound(batch, self.path, done)
                    done += sound
                    if sound:
                        yield dict(zip(batch.schema.names, batch.slice(0, sound).columns, strict=True)), done
                    if damage:
                        raise DataError(damage)
            except OSError as error:
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


def plain(values: Any) -> list[Any]:
    """Return a column's values as Python objects."""
    return list(values.to_pylist() if hasattr(values, "to_pylist") else values)


def _pyarrow(path: Path) -> Any:
    try:
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise DataError(f"{path}: pyarrow is not installed: pip install 'slimline[parquet]'") from error
    return pyarrow.parquet


def read(path: Path) -> Table:
    """Open a .csv, .tsv, .jsonl or .parquet file, or images in a folder, zip or tar.

    Raises DataError naming what is wrong with it.
    """
    if path.is_dir():
        return _Folder(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file or folder")
    if path.name.lower().endswith(ARCHIVES):
        return _Archive(path)
    readers: dict[str, type[_Csv | _JsonLines | _Parquet]] = {
        ".csv": _Csv, ".tsv": _Csv, ".jsonl": _JsonLines, ".parquet": _Parquet,
    }  # fmt: skip
    if path.suffix.lower() not in readers:
        hint = "; one JSON object a line makes a .jsonl" if path.suffix == ".json" else ""
        raise DataError(f"{path}: a folder of images, {', '.join((*readers, *ARCHIVES))} is expected{hint}")
    return readers[path.suffix.lower()](path)


@contextmanager
def written(path: Path) -> Iterator[Callable[[Mapping[str, Sequence[Any]]], None]]:
    """Yield a function that takes batches {column: values}; the file appears when the block ends well."""
    if path.suffix not in {".csv", ".parquet"}:
        raise DataError(f"{path}: .csv or .parquet is expected")
    if not path.parent.is_dir():
        raise DataError(f"{path.parent}: no such folder to write {path.name} into")
    if path.suffix == ".parquet":
        _pyarrow(path)  # if it isn't there, the message names the file that was asked for
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
    parquet = _pyarrow(path)
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
