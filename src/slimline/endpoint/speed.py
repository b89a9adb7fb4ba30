"""How long a model takes for so many rows: the release's measurements, corrected by what is seen here."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping

UNKNOWN = 1.0  # seconds: a model that nobody measured isn't run on the event loop until it was seen to be quick
SMOOTHING = 0.05
ENOUGH = 0.95


class Speed:
    """Interpolates the seconds that ``rows`` rows take between measured batch sizes.

    ``latency_ms`` is {batch size: {"p50": ms}} as benchmark.json has it. ``observe`` follows this machine's speed with
    an exponentially weighted mean of seen over measured.
    """

    def __init__(self, latency_ms: Mapping[str, Mapping[str, float]]) -> None:
        points = sorted((int(size), row["p50"] / 1e3) for size, row in latency_ms.items())
        self._sizes = [size for size, _ in points]
        self._seconds = [seconds for _, seconds in points]
        self._known: dict[int, float] = {}
        self._ratio = 1.0 if points else 0.0

    def measured(self, rows: int) -> float:
        """Return the seconds that the release's benchmark says, in proportion beyond the batch sizes it ran."""
        if rows not in self._known and len(self._known) < 10_000:
            self._known[rows] = self._interpolated(rows)
        return self._known.get(rows) or self._interpolated(rows)

    def _interpolated(self, rows: int) -> float:
        if not self._sizes:
            return UNKNOWN
        at = bisect_left(self._sizes, rows)
        if at == len(self._sizes):
            return self._seconds[-1] * rows / self._sizes[-1]
        if at == 0:
            return self._seconds[0]
        low, high = self._sizes[at - 1], self._sizes[at]
        share = (rows - low) / (high - low)
        return self._seconds[at - 1] * (1 - share) + self._seconds[at] * share

    def estimate(self, rows: int) -> float:
        """Return the seconds expected on this machine."""
        return self.measured(rows) * (self._ratio or 1.0)

    def observe(self, rows: int, seconds: float) -> None:
        """Learn from one run; a single slow one (the process was stopped, say) counts for twice the usual at most."""
        seen = seconds / self.measured(rows)
        if not self._ratio:
            self._ratio = seen
        self._ratio += SMOOTHING * (min(seen, 2 * self._ratio) - self._ratio)

    def best_rows(self, limit: int) -> int:
        """Return the batch size up to ``limit`` from which larger ones bring no more rows a second.

        Of the measured sizes within 5% of the best rate it is the smallest: larger ones only add waiting. Unmeasured
        models are batched up to ``limit``.
        """
        if not self._sizes:
            return limit
        rates = {size: size / seconds for size, seconds in zip(self._sizes, self._seconds, strict=True)}
        fitting = {size: rate for size, rate in rates.items() if size <= limit} or {1: 0.0}
        best = max(fitting.values())
        return min(size for size, rate in fitting.items() if rate >= ENOUGH * best)
