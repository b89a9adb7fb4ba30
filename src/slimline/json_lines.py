"""Files of one JSON object a line that only grow: what happened, in order. A line is whole, or torn and left out."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from slimline import manifest


def append(path: Path, entry: Mapping[str, Any], *, sync: bool = True) -> None:
    """Write an entry, apart from a last line that a power cut tore; ``sync``: it is on the disk when this returns.

    The file is made where it is missing, its folder isn't. Raises OSError, or ArtifactError where the disk is full.
    """
    line = json.dumps(entry).encode() + b"\n"  # ASCII, so no character in it ends a line for whoever reads it
    try:
        with path.open("ab+") as file:
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                line = line if file.read(1) == b"\n" else b"\n" + line
            file.write(line)  # at the end, wherever was read
            file.flush()
            if sync:
                os.fsync(file.fileno())
    except OSError as error:
        raise manifest.told(error, path) from error


def read(path: Path) -> Iterator[dict[str, Any]]:
    """Yield every entry, oldest first; a line that is torn, or no object, is left out. No file: no entry."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        for line in file:
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict):
                yield entry
