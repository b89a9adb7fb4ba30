"""A process that gets less of the processor than it was measured with: moments of one core that another keeps busy."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Self

REST = 0.0002  # seconds; less than a model call takes when it has the core for itself
NEIGHBOUR = """
import os, sys, time
parent, busy, rest = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
while os.getppid() == parent:
    until = time.perf_counter() + busy
    while time.perf_counter() < until:
        pass
    time.sleep(rest)
"""


class Crowded:
    """Pin all threads of ``pid`` to one core beside a process that takes it for ``busy`` seconds, rests, and so on.

    The neighbour comes first: raising its priority takes root, so the threads of ``pid`` are given Linux' lowest one,
    SCHED_IDLE. (Beside a neighbour of the same priority that never rests, a short call is seldom interrupted: the time
    is lost before the server reads the request, where it can't count it.) Use it in a ``with``, which ends the
    neighbour; the threads stay where they are.
    """

    def __init__(self, pid: int, *, busy: float, rest: float = REST) -> None:
        self.core = max(os.sched_getaffinity(pid))
        self._pid, self._times = pid, (str(busy), str(rest))
        self._neighbour: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        for task in Path(f"/proc/{self._pid}/task").iterdir():  # threads that they start later take after them
            os.sched_setaffinity(int(task.name), {self.core})
            os.sched_setscheduler(int(task.name), os.SCHED_IDLE, os.sched_param(0))
        self._neighbour = subprocess.Popen([sys.executable, "-c", NEIGHBOUR, str(os.getpid()), *self._times])
        os.sched_setaffinity(self._neighbour.pid, {self.core})
        with contextlib.suppress(PermissionError):  # where all of this runs at a low priority itself
            os.sched_setscheduler(self._neighbour.pid, os.SCHED_OTHER, os.sched_param(0))
            os.setpriority(os.PRIO_PROCESS, self._neighbour.pid, 0)
        return self

    def __exit__(self, *_: object) -> None:
        if self._neighbour is not None:
            self._neighbour.kill()
            self._neighbour.wait()
