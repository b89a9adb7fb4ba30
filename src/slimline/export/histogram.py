"""Histograms of values seen in parts, on a grid of powers of two: the parts, and whole histograms, add up exactly."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

BINS = 64


class Histogram:
    """Counts of the finite values seen. Bin i holds [(first + i) · 2^exponent, (first + i + 1) · 2^exponent).

    The exponent is the smallest at which at most ``BINS`` bins hold all values; it only grows as more are seen.
    """

    def __init__(self) -> None:
        self.exponent = 0
        self.first = 0
        self.counts = torch.zeros(0, dtype=torch.int64)

    def add(self, values: Tensor) -> None:
        """Count every finite value of a tensor of any shape."""
        x = values.detach().flatten().float()
        x = x[x.isfinite()]
        if not len(x):
            return
        low, high = float(x.min()), float(x.max())
        exponent = _finest(low, high)
        if len(self.counts):
            exponent = max(exponent, self.exponent)
        first, last = (math.floor(bound / 2.0**exponent) for bound in (low, high))
        if len(self.counts):
            shift = 2 ** (exponent - self.exponent)
            while max(last, self._last // shift) - min(first, self.first // shift) >= BINS:
                exponent, shift, first, last = exponent + 1, shift * 2, first // 2, last // 2
            first, last = min(first, self.first // shift), max(last, self._last // shift)
        counts = torch.zeros(last - first + 1, dtype=torch.int64)
        for at, count in enumerate(self.counts):  # at most BINS of them, and a shift may exceed 64 bits
            counts[(self.first + at) // shift - first] += count
        found = torch.floor(x.double() / 2.0**exponent).long() - first  # float32 would flush the tiniest to zero
        counts += torch.bincount(found, minlength=len(counts))
        self.exponent, self.first, self.counts = exponent, first, counts

    @property
    def _last(self) -> int:
        return self.first + len(self.counts) - 1

    def data(self) -> dict[str, Any]:
        """Return the histogram as JSON data."""
        return {"exponent": self.exponent, "first": self.first, "counts": self.counts.tolist()}


def _finest(low: float, high: float) -> int:
    """Return the smallest exponent at which values from ``low`` to ``high`` lie in at most BINS bins."""
    largest = max(abs(low), abs(high), 2.0**-100)  # a constant has no spread: its size decides
    exponent = math.floor(math.log2(max(high - low, largest / BINS) / BINS))
    while math.floor(high / 2.0**exponent) - math.floor(low / 2.0**exponent) >= BINS:
        exponent += 1
    return exponent


def of(values: Tensor) -> dict[str, Any]:
    """Return the histogram of one tensor as JSON data."""
    histogram = Histogram()
    histogram.add(values)
    return histogram.data()
