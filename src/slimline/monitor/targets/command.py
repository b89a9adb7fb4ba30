"""Any program: ``{name: command, argv: [kubectl, rollout, undo, deployment/slimline, --to-revision=3]}``."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from slimline.errors import UndoError
from slimline.monitor.alarm import Alarm
from slimline.monitor.target import Move


@dataclass(frozen=True)
class Command:
    """Run ``argv`` (no shell) with ``{"alarm", "move"}`` as JSON on its standard input; exit 0 within ``timeout`` s.

    Run again it should change nothing: name the revision to go back to, not "the one before".
    """

    argv: Annotated[list[str], Field(min_length=1)]
    timeout: Annotated[float, Field(gt=0)] = 60.0

    name: ClassVar[str] = "command"

    def plan(self, alarm: Alarm, avoid: Collection[str]) -> Move | None:
        del avoid
        return Move("ask", f"run {' '.join(self.argv)}", alarm.standing.revision, alarm.standing.variant)

    def move(self, move: Move, alarm: Alarm) -> str:
        text = json.dumps({"alarm": alarm.as_dict(), "move": move.as_dict()})
        try:
            done = subprocess.run(
                self.argv, input=text, capture_output=True, encoding="utf-8", errors="replace", timeout=self.timeout,
                check=False,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UndoError(f"monitor.undo.target: {self.argv[0]}: {error}") from error
        said = (done.stderr or done.stdout).strip().splitlines()[-1:]
        if done.returncode:
            raise UndoError(f"monitor.undo.target: {self.argv[0]} ended with {done.returncode}: {' '.join(said)}")
        return " ".join([f"{self.argv[0]} ended well", *said])

    def done(self, move: Move) -> bool | None:
        del move
        return None
