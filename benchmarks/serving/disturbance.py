"""How busy a machine was with other things while something was timed, so that a disturbed timing can be repeated."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

TICKS = os.sysconf("SC_CLK_TCK")
COUNTED = (0, 1, 2, 7)  # of /proc/stat: user, nice, system, steal; interrupts belong to whoever caused them


def tree(pid: int) -> list[int]:
    """Return a process and all below it."""
    found, todo = [], [pid]
    while todo:
        each = todo.pop()
        try:
            threads = list(Path(f"/proc/{each}/task").iterdir())
            todo += [int(child) for thread in threads for child in (thread / "children").read_text().split()]
        except OSError:  # it has just ended
            continue
        found.append(each)
    return found


def cpu_seconds(pids: Sequence[int]) -> float:
    """Return the CPU time that processes have used, that of their ended children included."""
    total = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += sum(int(each) for each in fields[11:15])  # utime, stime, cutime, cstime
    return total / TICKS


class Foreign:
    """Measures the share of one CPU that others than this process and the server below ``pid`` used meanwhile."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.share = 0.0

    def __enter__(self) -> Self:
        self._since = (time.monotonic(), _busy(), self._own())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        seconds, busy, own = (
            now - then for now, then in zip((time.monotonic(), _busy(), self._own()), self._since, strict=True)
        )
        self.share = max(0.0, (busy - own) / seconds)

    def _own(self) -> float:
        return cpu_seconds([*tree(self._pid), os.getpid()])


def _busy() -> float:
    line = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    return sum(int(line[at]) for at in COUNTED) / TICKS
