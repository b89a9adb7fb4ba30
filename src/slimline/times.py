"""How long each stage took here: ``.slimline/times/NAME.json``, outside what DVC tracks. Imports no torch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from slimline import manifest

FOLDER = Path(".slimline/times")


@contextmanager
def recorded(name: str) -> Iterator[None]:
    """Time the block and, when it ends well, write {"seconds", "when" (ISO date and time, UTC)} for ``name``."""
    started = time.monotonic()
    yield
    when = datetime.now(UTC).isoformat(timespec="seconds")
    manifest.write_json(FOLDER / f"{name}.json", {"seconds": round(time.monotonic() - started, 1), "when": when})


def read(name: str, folder: Path = FOLDER) -> dict[str, Any] | None:
    """Return what ``recorded`` wrote for ``name``, or None where it didn't run here."""
    path = folder / f"{name}.json"
    return dict(manifest.read_json(path)) if path.is_file() else None
