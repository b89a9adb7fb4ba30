"""What the monitor remembers over a restart: how far it read, and every signal's state after exactly that.

Both stand in one file that is replaced by a rename, so they can't part: what was read after the last checkpoint is
read again, into signals that don't know it yet. The one before is kept beside it.
"""

from __future__ import annotations

import json
import logging
import os
import zlib
from pathlib import Path
from typing import Any

from slimline import manifest

FORMAT = 1
FILE, BEFORE = "checkpoint.json", "checkpoint.before.json"
log = logging.getLogger(__name__)


def write(folder: Path, state: dict[str, Any]) -> None:
    """Bring ``state`` to the disk, whole or not at all."""
    body = json.dumps(state).encode()  # which keeps NaN and infinity apart
    scratch = folder / f".{FILE}.{os.getpid()}.tmp"
    try:
        with scratch.open("wb") as file:
            file.write(b"%d %08x\n" % (FORMAT, zlib.crc32(body)) + body)
            file.flush()
            os.fsync(file.fileno())
        if (folder / FILE).is_file():
            (folder / FILE).replace(folder / BEFORE)
        scratch.replace(folder / FILE)
        manifest.fsync_folder(folder)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise manifest.told(error, folder / FILE) from error


def read(folder: Path) -> dict[str, Any] | None:
    """Return the newest state that is whole, or None; a damaged one is said and set aside."""
    for name in (FILE, BEFORE):
        path = folder / name
        if not path.is_file():
            continue
        if (state := _whole(path)) is not None:
            return state
        path.replace(path.with_suffix(".damaged"))
        log.warning("%s: damaged or of another version; set aside, going on from the one before or the start", path)
    return None


def _whole(path: Path) -> dict[str, Any] | None:
    head, _, body = path.read_bytes().partition(b"\n")
    if head != b"%d %08x" % (FORMAT, zlib.crc32(body)):
        return None
    state: dict[str, Any] = json.loads(body)
    return state
