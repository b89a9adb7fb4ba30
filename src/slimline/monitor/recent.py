"""Sums over the last rows, in constant memory and the same however the rows are cut into batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Recent:
    """Sums of ``width`` columns over the last ``span`` to 2·``span`` rows (all of them until there are so many).

    Two spans are kept: the older one is shown, and gives way to the newer when that is full. A span starts at a row
    whatever the rows say, so that a confidence sequence over it holds.
    """

    def __init__(self, width: int, span: int) -> None:
        self.span = span
        self._sums = np.zeros((2, width))
        self._counts = [0, 0]

    @property
    def count(self) -> int:
        """Rows in the sums."""
        return self._counts[0]

    @property
    def sums(self) -> Floats:
        """The sum of each column."""
        sums: Floats = self._sums[0]
        return sums

    def feed(self, rows: Floats) -> None:
        """Take rows × width values."""
        start = 0
        while start < len(rows):
            if self._counts[0] == 2 * self.span:
                self._sums[0], self._sums[1] = self._sums[1], 0.0
                self._counts = [self._counts[1], 0]
            # the newer starts once the older is half full, so that it holds span rows when it takes over
            edge = self.span if self._counts[0] < self.span else 2 * self.span
            part = rows[start : start + edge - self._counts[0]]
            total = part.sum(0)
            self._sums[0] += total
            if self._counts[0] >= self.span:
                self._sums[1] += total
                self._counts[1] += len(part)
            self._counts[0] += len(part)
            start += len(part)

    def restart(self) -> None:
        """Forget all rows."""
        self._sums[:] = 0.0
        self._counts = [0, 0]

    def dump(self) -> dict[str, Any]:
        """Return its state as plain JSON data."""
        return {"sums": self._sums.tolist(), "counts": list(self._counts)}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on from what ``dump`` returned."""
        self._sums[:] = saved["sums"]
        self._counts = [int(each) for each in saved["counts"]]
