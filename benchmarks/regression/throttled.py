"""A process that gets less of the processor than it was measured with, as under a container's CPU limit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Self

THROTTLE = """
import os, signal, sys, time
parent, pid = map(int, sys.argv[1:3])
runs, stopped = map(float, sys.argv[3:5])
try:
    while os.getppid() == parent:
        os.kill(pid, signal.SIGSTOP)
        time.sleep(stopped)
        os.kill(pid, signal.SIGCONT)
        time.sleep(runs)
except ProcessLookupError:
    pass
"""


class Throttled:
    """Let ``pid`` run for ``runs`` seconds, stop it for ``stopped``, and so on, as the kernel does with a group of
    processes that has used up its quota. Use it in a ``with``, after which the process runs freely.

    A request's own time grows where a stop falls into it: ``runs`` should be no longer than a few model calls.
    """

    def __init__(self, pid: int, *, runs: float, stopped: float) -> None:
        self._arguments = [str(each) for each in (os.getpid(), pid, runs, stopped)]
        self._pid = pid
        self._throttle: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._throttle = subprocess.Popen([sys.executable, "-S", "-c", THROTTLE, *self._arguments])
        return self

    def __exit__(self, *_: object) -> None:
        if self._throttle is not None:
            self._throttle.kill()
            self._throttle.wait()
            os.kill(self._pid, signal.SIGCONT)
