"""A server's processes, and how long they were kept waiting for their CPU while something was timed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self


def tree(pid: int) -> list[int]:
    """Return a process and all below it."""
    found, todo = [], [pid]
    while todo:
        each = todo.pop()
        try:
            todo += [int(child) for task in _tasks(each) for child in (task / "children").read_text().split()]
        except OSError:  # it has just ended
            continue
        found.append(each)
    return found


def _tasks(pid: int) -> Iterator[Path]:
    return Path(f"/proc/{pid}/task").iterdir()


class Waiting:
    """Measures which share of the time the threads below ``pid`` were ready to run and didn't, added up.

    A server of one thread waits for others alone; of a server of many, its threads wait for each other too.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.share = 0.0

    def __enter__(self) -> Self:
        self._since = (time.monotonic(), self._waited())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        seconds = time.monotonic() - self._since[0]
        self.share = (self._waited() - self._since[1]) / seconds

    def _waited(self) -> float:
        """Return the seconds that the threads have waited in their lives; the kernel counts nanoseconds."""
        total = 0
        for pid in tree(self._pid):
            for task in _tasks(pid):
                try:
                    total += int((task / "schedstat").read_text().split()[1])
                except OSError:
                    continue
        return total / 1e9
