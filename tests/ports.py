"""TCP ports for servers of tests, below those that the system gives to connections, so that none is taken meanwhile."""

from __future__ import annotations

import itertools
import os
import socket
from contextlib import suppress

FIRST, COUNT, IN_A_ROW = 20_000, 12_000, 4

_starts = itertools.count(os.getpid() * 97)  # processes beside each other begin apart


def free_ports() -> int:
    """Return the first of four ports in a row that nobody has. Each is given once."""
    for _ in range(COUNT // IN_A_ROW):
        first = FIRST + next(_starts) * IN_A_ROW % COUNT
        with suppress(OSError):
            for port in range(first, first + IN_A_ROW):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
            return first
    raise AssertionError(f"no {IN_A_ROW} free ports in a row")
