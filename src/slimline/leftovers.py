"""What lies under ``.slimline/`` and can be made again goes when nobody came back to it for a while."""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from pathlib import Path

KEEP_DAYS = 14


def sweep(folder: Path) -> None:
    """Remove the folders in ``folder`` that nothing was written to for so many days; others may sweep at once."""
    for each in folder.glob("*/"):
        with suppress(FileNotFoundError):  # another process was faster
            if time.time() - each.stat().st_mtime > KEEP_DAYS * 86400:
                shutil.rmtree(each, ignore_errors=True)
