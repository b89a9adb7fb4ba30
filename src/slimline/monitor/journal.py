"""What was done about alarms, by whom and why: one JSON object a line, appended, on the disk before the next step.

::

    FOLDER/journal.jsonl   the audit log; nothing is ever changed in it
    FOLDER/hold.json       while people hold undo off: who, why, since when; the log tells of it too
    FOLDER/.lock           held while anything is decided
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from slimline import json_lines, locking, manifest
from slimline.errors import UndoError

FILE, HOLD = "journal.jsonl", "hold.json"
FOLDER = Path(".slimline/undo")
LOCK_TIMEOUT = 120.0


class Journal:
    """The record in ``folder``, which is made when it is written to.

    ``clock`` tells Unix time; for its lock ``lock_timeout`` seconds are waited.
    """

    def __init__(
        self, folder: Path = FOLDER, clock: Callable[[], float] = time.time, lock_timeout: float = LOCK_TIMEOUT
    ) -> None:
        self.folder = folder
        self.clock = clock
        self.lock_timeout = lock_timeout

    def entries(self) -> list[dict[str, Any]]:
        """Return what was done about alarms, oldest first."""
        return [each for each in self.lines() if each.get("alarm") is not None]

    def lines(self) -> list[dict[str, Any]]:
        """Return every entry, oldest first: people's locks too. A line that a power cut tore is left out."""
        try:
            return list(json_lines.read(self.folder / FILE))
        except OSError as error:
            raise UndoError(f"{self.folder / FILE}: can't be read ({error.strerror})") from error

    def append(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        """Write an entry with the time; it is on the disk when this returns."""
        whole = {"time": round(self.clock(), 3), **entry}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise manifest.told(error, self.folder) from error
        json_lines.append(self.folder / FILE, whole)
        return whole

    def held(self) -> dict[str, Any] | None:
        """Return {"by", "why", "time"} while people hold undo off, else None."""
        path = self.folder / HOLD
        if not path.exists():
            return None
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found = None
        return found if isinstance(found, dict) else {"by": "?", "why": "", "time": 0.0}  # damaged: held all the same

    def hold(self, by: str, why: str) -> dict[str, Any] | None:
        """Hold undo off until ``release``, at once; note it, and return when no executor moves anything any more.

        Returns the entry of an action whose doer was killed before it could say how it ended, else None: what that
        doer started may still run. Raises UndoError when an executor is at work for longer than is waited; undo is
        held off then too.
        """
        manifest.write_json(self.folder / HOLD, {"by": by, "why": why, "time": round(self.clock(), 3)})
        self.append({"alarm": None, "outcome": "locked", "by": by, "why": why})
        try:
            with self.locked():
                entries = self.entries()
        except UndoError as error:
            raise UndoError(
                f"{self.folder}: undo is held off from now on, but after {self.lock_timeout:g} s what had begun before "
                "is still under way and may move traffic; slimline undo --list shows when it is over"
            ) from error
        return entries[-1] if entries and entries[-1]["outcome"] == "begun" else None

    def release(self, by: str) -> None:
        """Let undo act again, and note who did, if it was held off."""
        held = self.held()
        (self.folder / HOLD).unlink(missing_ok=True)
        if held is not None:
            self.append(
                {"alarm": None, "outcome": "unlocked", "by": by, "why": f"locked by {held['by']}: {held['why']}"}
            )

    def locked(self) -> AbstractContextManager[None]:
        """Hold the journal's lock."""
        return locking.held(self.folder, self.lock_timeout, UndoError)
