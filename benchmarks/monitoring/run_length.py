"""The average run length, from tens of millions of rows that nothing is wrong with.

The detectors' recursion, R ← (R + 1)·factor, runs over many streams at once here; that it is the same as the signals'
is checked first on one stream. A rate of so few alarms has a wide interval: with k alarms in n rows the run length is
at least n/μ with 95% confidence, μ being the exact upper limit of a Poisson mean (3.0 for k = 0; Garwood 1936).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from recorded import Recordings
from tqdm import trange

from slimline.monitor.baseline import Baseline
from slimline.monitor.floors import FloorTest
from slimline.monitor.sequential import Detector, factors

Floats = NDArray[np.float64]
STREAMS = 256
ROWS = 100_000


def run_lengths(known: Baseline, recordings: Recordings, threshold: float) -> dict[str, Any]:
    """Return alarms and rows for accuracy and agreement on the release as it is, and for rows right at the floor."""
    labels, classes, alone = recordings.labels, known.promises.classes, known.promises.alone
    good = recordings.good
    right = (good.last.argmax(1) == labels).astype(np.float64)
    test = FloorTest(threshold, alone)
    by_class = np.ones((len(labels), *test.detector.weights.shape))
    by_class[:, 0] = factors(right, classes[labels])
    rows = np.arange(len(labels))
    by_class[rows, 1 + labels] = factors(right, alone[labels])
    said = good.teacher.argmax(1)
    agreement = factors((said == good.last.argmax(1)).astype(np.float64), known.promises.agreement[said])[:, None]
    edge = factors(np.array([1.0, 0.0]), np.full(2, known.promises.overall))[:, None]
    promised = known.promises.overall
    single = Detector([1.0], threshold)
    return {
        "accuracy": _measure(by_class, None, test.detector, threshold),
        "agreement": _measure(agreement, None, single, threshold),
        "right at the floor": _measure(edge, np.array([promised, 1 - promised]), single, threshold),
    }


def _measure(table: Floats, weights: Floats | None, detector: Detector, threshold: float) -> dict[str, Any]:
    """Count alarms in STREAMS streams of ROWS rows, drawn from ``table`` [rows, streams, bets]."""
    from scipy.stats import chi2

    rng = np.random.default_rng(0)
    drawn = rng.choice(len(table), 5000, p=weights)
    assert _counted(table, drawn[:, None], detector.weights, 50.0) == _alarms_of(detector, table[drawn], 50.0)
    alarms = 0
    stakes = np.zeros((STREAMS, *detector.weights.shape))
    flat, shares = stakes.reshape(STREAMS, -1), detector.weights.ravel()
    for _ in trange(ROWS // 1000):
        for rows in rng.choice(len(table), (1000, STREAMS), p=weights):
            stakes += 1.0
            stakes *= table[rows]
            over = flat @ shares >= threshold
            if over.any():
                alarms += int(over.sum())
                stakes[over] = 0.0
    total = STREAMS * ROWS
    return {
        "rows": total,
        "alarms": alarms,
        "run_length": total / alarms if alarms else None,
        "at_least": float(total / (chi2.ppf(0.95, 2 * (alarms + 1)) / 2)),
    }


def _counted(table: Floats, drawn: NDArray[np.int64], weights: Floats, threshold: float) -> int:
    stakes, alarms = np.zeros((1, *weights.shape)), 0
    for rows in drawn:
        stakes = (stakes + 1.0) * table[rows]
        if (stakes * weights).sum() >= threshold:
            alarms, stakes = alarms + 1, np.zeros_like(stakes)
    return alarms


def _alarms_of(detector: Detector, made: Floats, threshold: float) -> int:
    own = Detector(detector.weights.sum(1), threshold)
    return len(own.feed(made))
