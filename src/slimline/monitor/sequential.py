"""Tests that may be looked at after every row: e-detectors and confidence sequences for bounded means.

A score x in [0, 1] is promised to be at least m on average, given all that came before. A bet ρ in (0, 1) on less
multiplies its stake by

    1 + ρ·(m − x)/(1 − m),

whose mean is at most 1 while the promise holds: at x = 1 it keeps 1 − ρ, and it is the likelihood ratio of hits at the
rate m·(1 − ρ) against the rate m (Waudby-Smith & Ramdas 2024, JRSS B 86). Stakes that start anew at every row add up to
the Shiryaev-Roberts e-detector

    R ← (R + 1)·factor,

of which E[R] ≤ rows at any stopping time while the promise holds; so it takes at least A rows on average until R ≥ A,
however often it is looked at (Shin, Ramdas & Rinaldo 2023, arXiv:2203.03532). A weighted mean of several is one too,
however they depend, which is how bets, classes, bins and features are tested together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

BETS = (0.02, 0.04, 0.08, 0.16, 0.32, 0.64)
EDGE = 1e-4  # promises nearer to 0 or 1 would make a single row decide


def factors(scores: Floats, promised: Floats, bets: Sequence[float] = BETS) -> Floats:
    """Return what each bet makes of its stake, [..., bets], for ``scores`` and ``promised`` means, both [...]."""
    m = np.clip(promised, EDGE, 1 - EDGE)
    odds = (m - scores) / (1 - m)
    made: Floats = 1.0 + odds[..., None] * np.asarray(bets)
    return made


class Detector:
    """A weighted mean of Shiryaev-Roberts e-detectors; each has the same bets, in equal shares.

    ``weights`` [streams] sum to 1. ``threshold`` is the least average number of steps between two alarms that nothing
    caused; a step is ``every`` rows. After an alarm it starts anew. ``shares`` [streams] are the weighted e-values,
    whose sum is ``evidence``; ``at_alarm`` are those of the last alarm.
    """

    def __init__(self, weights: Sequence[float] | Floats, threshold: float, bets: int = len(BETS), every: int = 1):
        self.weights = np.repeat(np.asarray(weights, np.float64)[:, None] / bets, bets, axis=1)
        self.threshold, self.every = threshold, every
        self._stakes = np.zeros_like(self.weights)
        self._pending = np.ones_like(self.weights)
        self._held = 0
        self.at_alarm: Floats = np.zeros(len(self.weights))

    @property
    def shares(self) -> Floats:
        """What each stream adds to the evidence."""
        shares: Floats = (self.weights * self._stakes).sum(1)
        return shares

    @property
    def evidence(self) -> float:
        """The e-value now."""
        return float(self.shares.sum())

    def feed(self, made: Floats) -> list[int]:
        """Take factors [rows, streams, bets] and return the rows at which there was an alarm.

        Feeding in parts is the same, bit for bit.
        """
        alarms = []
        stakes, flat, weights = self._stakes, self._stakes.ravel(), self.weights.ravel()
        ends = range(self.every - self._held - 1, len(made), self.every)
        for row, factor in zip(ends, made if self.every == 1 else self._steps(made, ends), strict=True):
            stakes += 1.0
            stakes *= factor
            if flat @ weights >= self.threshold:
                self.at_alarm = self.shares
                stakes[:] = 0.0
                alarms.append(row)
        return alarms

    def _steps(self, made: Floats, ends: range) -> Floats:
        """Return the product of each step's rows, which end at ``ends``, and keep that of the step just begun."""
        held = int(self._held > 0)
        rows = np.concatenate([self._pending[None], made]) if held else made
        starts = [0, *(end + 1 + held for end in ends)]
        self._held = (self._held + len(made)) % self.every
        if not len(rows):
            return rows
        products: Floats = np.multiply.reduceat(rows, starts[: len(ends) + int(self._held > 0)], axis=0)
        if self._held:
            self._pending = products[-1]
        return products[: len(ends)]

    def dump(self) -> dict[str, Any]:
        """Return its state as plain JSON data."""
        return {
            "stakes": self._stakes.tolist(),
            "pending": self._pending.tolist() if self._held else None,
            "held": self._held,
            "at_alarm": self.at_alarm.tolist(),
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on from what ``dump`` returned."""
        self._stakes[:] = saved["stakes"]
        self._pending[:] = 1.0 if saved["pending"] is None else saved["pending"]
        self._held = int(saved["held"])
        self.at_alarm = np.asarray(saved["at_alarm"], np.float64)


def interval(total: float, count: int, confidence: float) -> tuple[float, float]:
    """Return the confidence sequence [low, high] of a mean after ``count`` scores in [0, 1] that add up to ``total``.

    It covers the mean at all counts at once with probability ``confidence``. Of hits and misses at the rate m, the
    mixture of all rates by the weight Beta(1/2, 1/2) has the likelihood ratio B(s + 1/2, n − s + 1/2)/(π·m^s·(1 −
    m)^(n−s)), a martingale that ever exceeds 1/α with probability at most α (Robbins 1970; Howard et al. 2021, Annals
    of Statistics 49). Scores between 0 and 1 only make it smaller, by Jensen's inequality.
    """
    if count == 0:
        return 0.0, 1.0
    hits, misses = total, count - total
    level = math.lgamma(hits + 0.5) + math.lgamma(misses + 0.5) - math.lgamma(count + 1) - math.log(math.pi)
    level += math.log(1 - confidence)

    def inside(m: float) -> bool:
        own = (hits * math.log(m) if hits > 0 else 0.0) + (misses * math.log1p(-m) if misses > 0 else 0.0)
        return level < own

    mean = min(max(total / count, 0.0), 1.0)
    return _edge(inside, mean, 0.0), _edge(inside, mean, 1.0)


def _edge(inside: Callable[[float], bool], within: float, without: float) -> float:
    for _ in range(48):
        middle = (within + without) / 2
        if not 0 < middle < 1:
            break
        within, without = (middle, without) if inside(middle) else (within, middle)
    return without
