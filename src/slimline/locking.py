"""A folder that one process at a time may change. The kernel frees the lock when its holder dies."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slimline import manifest
from slimline.errors import SlimlineError

FILE = ".lock"
LOOK_SECONDS = 0.02


@contextmanager
def held(folder: Path, timeout: float, error: type[SlimlineError], busy: str | None = None) -> Iterator[None]:
    """Hold ``folder``/.lock, making the folder.

    Raises ``error`` when others hold it for ``timeout`` seconds; ``busy`` says then who they are and what to do.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / FILE).open("a+", encoding="utf-8")
    except OSError as mistake:
        raise manifest.told(mistake, folder) from mistake
    with file:
        deadline = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    said = busy or f"another process holds its lock for {timeout:g} s; try again"
                    raise error(f"{folder}: {said}") from None
                time.sleep(LOOK_SECONDS)
        yield
