"""Facts about files, remembered between runs as long as a file's size and time of change stay the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from slimline.manifest import write_text

FILE = Path(".slimline/files.json")


class FileIndex:
    """``facts(path, compute)`` computes once a version of a file; ``save`` keeps what was asked for. JSON data only."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._kept: dict[str, Any] = {}
        self._before: dict[str, Any] = {}
        if path is not None and path.is_file():
            try:
                self._before = json.loads(path.read_text(encoding="utf-8"))
            except ValueError:
                self._before = {}  # a damaged index costs time, nothing else

    def facts(self, path: Path, compute: Callable[[Path], Any]) -> Any:
        """Return ``compute(path)``, from memory when the file is as it was."""
        status = path.stat()
        key = f"{compute.__name__} {path.absolute()}"
        version = [status.st_mtime_ns, status.st_size]
        known = self._kept.get(key) or self._before.get(key)
        if known is None or known[0] != version:
            known = [version, compute(path)]
        self._kept[key] = known
        return known[1]

    def save(self) -> None:
        """Write the index, when it has a path."""
        if self.path is not None and self._kept != self._before:
            write_text(self.path, json.dumps(self._kept))
