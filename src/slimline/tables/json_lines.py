"""One JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from slimline.errors import DataError
from slimline.tables.table import Columns, Table, batched
from slimline.tables.text import decoded


class JsonLines(Table):
    """A file of one JSON object a line, all with the keys of the first. Work is counted in bytes."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            _, first = next(objects(file, path), (1, {}))
        if not first:
            raise DataError(f"{path}: line 1: a JSON object with a key for each column is expected")
        super().__init__(path, list(first), path.stat().st_size)

    def batches(self, size: int, names: Sequence[str] | None = None) -> Iterator[tuple[Columns, int]]:
        used = self.names if names is None else list(names)
        with self.path.open("rb") as raw:
            for rows in batched(self._objects(raw, used), size):
                yield {name: [each[name] for each in rows] for name in used}, raw.tell()

    def _objects(self, raw: Any, used: Sequence[str]) -> Iterator[dict[str, Any]]:
        for number, found in objects(raw, self.path):
            if missing := [name for name in used if name not in found]:
                raise DataError(f"{self.path}: line {number}: no key {missing[0]!r}, which line 1 has")
            yield found


def objects(file: Any, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line, object) of a file that is open for bytes; empty lines hold none."""
    for number, line in enumerate(decoded(file, path), 1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}: line {number}: not JSON: {error}") from error
        if not isinstance(found, dict):
            raise DataError(f"{path}: line {number}: a JSON object is expected, found {type(found).__name__}")
        yield number, found
