"""Run ahead of everything else on the machine, so that what others do there changes a timing little.

Linux only, and only where it is allowed (root): nice -20 for the processes and for their sessions' scheduling groups,
and turns of 0.1 ms, so that who wakes up runs at once.
"""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterable
from pathlib import Path

NICEST = -20
TURN_NS = 100_000
SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}  # system calls


class _Attributes(ctypes.Structure):
    """struct sched_attr of sched_setattr(2)."""

    _fields_ = (
        ("size", ctypes.c_uint32), ("policy", ctypes.c_uint32), ("flags", ctypes.c_uint64), ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32), ("runtime", ctypes.c_uint64), ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
    )  # fmt: skip


def first() -> bool:
    """Put this process, and all that it starts, first; return whether that was allowed."""
    call = SCHED_SETATTR.get(platform.machine())
    if platform.system() != "Linux" or call is None:
        return False
    attributes = _Attributes(size=ctypes.sizeof(_Attributes), nice=NICEST, runtime=TURN_NS)
    failed = ctypes.CDLL(None).syscall(call, 0, ctypes.byref(attributes), 0)
    return not failed and sessions([os.getpid()])


def sessions(pids: Iterable[int]) -> bool:
    """Put the sessions of processes first: each has a scheduling group of its own, whose weight comes before nice."""
    try:
        for pid in pids:
            Path(f"/proc/{pid}/autogroup").write_text(str(NICEST))
    except OSError:  # not allowed, or a kernel without
        return False
    return True
