"""A feature's reference, as shares of bins, and what rows bet against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slimline.monitor.sequential import BETS, factors, interval

Floats = NDArray[np.float64]
BINS = 10
MOST_BINS = 50


@dataclass(frozen=True, eq=False)
class Histogram:
    """``edges`` cut the values into bins; None: a value is the number of its bin.

    ``shares`` [bins] are the reference's. ``factors`` [bins, 2·bins, bets]: what a row that falls into a bin does to
    each bet, first that a bin's share is above its upper limit, then that it is below its lower one. The limits are
    confidence limits of the reference's shares: as far as it may be wrong, nothing is made of it.
    """

    name: str
    edges: Floats | None
    shares: Floats
    factors: Floats

    def bins(self, values: NDArray[np.generic]) -> NDArray[np.int64]:
        """Return the bin of each value."""
        if self.edges is None:
            return np.minimum(np.asarray(values, np.int64), len(self.shares) - 1)
        return np.searchsorted(self.edges, values, side="right").astype(np.int64)


def of_values(name: str, values: NDArray[np.floating], error: float, bins: int = BINS) -> Histogram:
    """Return the histogram of numbers, in bins that hold equal shares of the reference where its values allow it.

    ``error`` is the chance that any of its limits is wrong.
    """
    edges = np.unique(np.quantile(np.asarray(values, np.float64), np.linspace(0, 1, bins + 1)[1:-1]))
    counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
    return _made(name, edges, counts, error)


def of_classes(name: str, indices: NDArray[np.integer], classes: int, error: float) -> Histogram:
    """Return the histogram of class numbers; beyond 50 classes the rest share the last bin."""
    most = min(classes, MOST_BINS)
    return _made(name, None, np.bincount(np.minimum(indices, most - 1), minlength=most), error)


def _made(name: str, edges: Floats | None, counts: NDArray[np.integer], error: float) -> Histogram:
    total = int(counts.sum())
    limits = [interval(float(count), total, 1 - error / (2 * len(counts))) for count in counts]
    table = np.empty((len(counts), 2 * len(counts), len(BETS)))
    for own in range(len(counts)):
        hits = np.zeros(len(counts))
        hits[own] = 1.0
        above = factors(1 - hits, np.array([1 - high for _, high in limits]))
        below = factors(hits, np.array([low for low, _ in limits]))
        table[own] = np.concatenate([above, below])
    return Histogram(name, edges, counts / total, table)


def moved(shares: Floats, counts: Floats) -> float:
    """Return the total variation distance ½·Σ|p − q|: the share of rows that lie in other bins than expected."""
    return float(0.5 * np.abs(shares - counts / counts.sum()).sum()) if counts.sum() else 0.0


def weights(histograms: Sequence[Histogram]) -> Floats:
    """Return the weights of all their bets: each feature has the same share, each bin the same of that."""
    parts = [np.full(2 * len(each.shares), 0.5 / len(each.shares)) for each in histograms]
    return np.concatenate(parts) / len(histograms)
