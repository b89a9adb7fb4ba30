"""Facts about files, remembered between runs as long as a file's size and time of change stay the same."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from slimline.manifest import write_text

FILE = Path(".slimline/files.json")


class FileIndex:
    """``facts(path, compute)`` computes once a version of a file; ``save`` keeps what was asked for. JSON data only."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._kept: dict[str, Any] = {}
        self._seen: dict[str, list[int] | None] = {}
        self._before: dict[str, Any] = {}
        if path is not None and path.is_file():
            try:
                document = json.loads(path.read_text(encoding="utf-8"))
                self._before, self._seen = document["facts"], document["seen"]
            except (ValueError, TypeError, KeyError):
                self._before, self._seen = {}, {}  # a damaged index costs time, nothing else

    def is_current(self, of: Iterable[Path]) -> bool:
        """Return whether the last ``save`` saw all paths ``of``, and every path it saw is as it was then."""
        known = self._seen
        return (
            bool(known)
            and all(str(path) in known for path in of)
            and all(_version(path) == known[path] for path in known)
        )

    def facts(self, path: Path, compute: Callable[[Path], Any]) -> Any:
        """Return ``compute(path)``, from memory when the file is as it was."""
        key = f"{compute.__name__} {path.absolute()}"
        version = _version(path)
        known = self._kept.get(key) or self._before.get(key)
        if known is None or known[0] != version:
            known = [version, compute(path)]
        self._kept[key] = known
        return known[1]

    def save(self, also: Iterable[Path] = ()) -> None:
        """Write the index, when it has a path. ``is_current`` looks at its files, their folders and ``also``."""
        files = [Path(key.partition(" ")[2]) for key in self._kept]
        seen = {str(path): _version(path) for path in {*files, *(file.parent for file in files), *also}}
        if self.path is not None and (self._kept, seen) != (self._before, self._seen):
            write_text(self.path, json.dumps({"facts": self._kept, "seen": seen}))


def _version(path: Path | str) -> list[int] | None:
    try:
        status = os.stat(path)  # noqa: PTH116  (a Path for each of a hundred files would take longer than the question)
    except FileNotFoundError:
        return None
    return [status.st_mtime_ns, status.st_size]
