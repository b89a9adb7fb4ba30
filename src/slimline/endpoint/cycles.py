"""How often Python looks for cycles of objects while something serves in this process."""

from __future__ import annotations

import gc
import threading

YOUNG = 20_000  # new objects between two looks: at 700, events that wait are looked through again and again


class Rarely:
    """Looks for cycles less often from the first ``start`` to the last ``stop``, for all who serve in this process.

    What is there at a ``start``, modules and models, stays for good: full collections needn't look at it, and stall
    requests less.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._serving = 0
        self._before = gc.get_threshold()

    def start(self) -> None:
        """Count one more that serves."""
        with self._lock:
            if not self._serving:
                self._before = gc.get_threshold()
            self._serving += 1
            gc.collect()
            gc.freeze()
            gc.set_threshold(YOUNG, *self._before[1:])

    def stop(self) -> None:
        """Count one less; after the last all is as it was before the first."""
        with self._lock:
            self._serving -= 1
            if not self._serving:
                gc.unfreeze()
                gc.set_threshold(*self._before)


RARELY = Rarely()
