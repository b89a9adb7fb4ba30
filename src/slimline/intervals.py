"""Intervals and tests for shares and for paired differences of two models on the same rows. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray


def share(hits: NDArray[np.bool_], confidence: float) -> list[float]:
    """Return Wilson's score interval [low, high] of the share of true values (Wilson 1927)."""
    n = len(hits)
    p = float(np.mean(hits))
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * float(np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)))
    return [middle - half, middle + half]


def paired_drop(before: NDArray[np.bool_], after: NDArray[np.bool_], confidence: float) -> list[float]:
    """Return the interval [low, high] of the drop mean(before) − mean(after) on the same rows.

    Newcombe's square-and-add of two Wilson intervals with the correlation of the paired answers (Newcombe 1998,
    Statistics in Medicine 17, method 10): it stays right when few rows differ, where a plain normal interval doesn't.
    """
    n = len(before)
    p1, p2 = float(np.mean(before)), float(np.mean(after))
    l1, u1 = share(before, confidence)
    l2, u2 = share(after, confidence)
    a, b = int(np.sum(before & after)), int(np.sum(before & ~after))
    c, d = int(np.sum(~before & after)), int(np.sum(~before & ~after))
    margins = float(a + b) * float(c + d) * float(a + c) * float(b + d)
    if margins == 0:
        phi = 0.0
    else:
        q = float(a * d - b * c)
        if q >= 0:
            q = max(q - n / 2, 0.0)
        phi = q / margins**0.5
    drop = p1 - p2
    low = drop - _root((p1 - l1) ** 2 - 2 * phi * (p1 - l1) * (u2 - p2) + (u2 - p2) ** 2)
    high = drop + _root((p2 - l2) ** 2 - 2 * phi * (p2 - l2) * (u1 - p1) + (u1 - p1) ** 2)
    return [low, high]


def _root(value: float) -> float:
    return float(np.sqrt(max(0.0, value)))


def percentile(draws: Sequence[float], confidence: float) -> list[float]:
    """Return the percentile interval [low, high] of bootstrap draws."""
    low, high = np.percentile(draws, [50 * (1 - confidence), 50 * (1 + confidence)])
    return [float(low), float(high)]


def median(values: NDArray[np.float64], confidence: float) -> list[float]:
    """Return the interval [low, high] of the median of ``values``: a bootstrap, the same for the same values."""
    rows = np.random.default_rng(0).integers(0, len(values), (2000, len(values)))
    return percentile(np.median(values[rows], axis=1).tolist(), confidence)


def mcnemar(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> float:
    """Return the two-sided exact p-value of McNemar's test that both are right equally often (McNemar 1947).

    Of the n rows that one alone gets right, each is as likely the one's as the other's: binomial(n, 1/2).
    """
    lost, won = int(np.sum(before & ~after)), int(np.sum(~before & after))
    n = lost + won
    tail = sum(
        math.exp(math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) - n * math.log(2))
        for k in range(min(lost, won) + 1)
    )
    return min(1.0, 2 * tail)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values, in the order given (Holm 1979, Scandinavian Journal of Statistics 6).

    Calling those at most α differences errs with probability at most α over all of them, however they depend.
    """
    m = len(p_values)
    adjusted = [0.0] * m
    largest = 0.0
    for rank, index in enumerate(sorted(range(m), key=lambda each: p_values[each])):
        largest = max(largest, min(1.0, (m - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
