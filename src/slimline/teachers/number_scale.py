"""A teacher of numbers must know its task: if the mean of the targets is as near as the numbers of one taken as it is,
most often they stand in another unit, or the column is another.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimline import intervals
from slimline.errors import ChanceError
from slimline.teachers.label_order import CONFIDENCE, ROWS

RESAMPLES = 400
CHANCE = 0.01
SMALL = 1e-6


def check(answers: NDArray[Any], targets: NDArray[Any], where: str, split: str = "validation") -> None:
    """Raise ChanceError when ``answers`` [N] aren't nearer to ``targets`` [N] than their mean, by the interval of R².

        R² = 1 − Σ(y − ŷ)² / Σ(y − ȳ)²

    The interval is the bootstrap's, judged on its bad end: it must lie above 0. ``where`` is the file and key to name,
    ``split`` what rows they are. The message says which slope and offset would bring the answers to the targets, if any
    do (least squares).
    """
    answers, y = np.asarray(answers, np.float64), np.asarray(targets, np.float64)
    if len(y) < ROWS or y.ndim != 1 or np.ptp(y) == 0:
        return
    rng = np.random.default_rng(0)
    draws = (rng.integers(0, len(y), len(y)) for _ in range(RESAMPLES))
    low, high = intervals.percentile([_r2(answers[rows], y[rows]) for rows in draws], CONFIDENCE)
    if low > 0:
        return
    r2 = _r2(answers, y)
    raise ChanceError(
        where,
        f"on {len(y)} {split} rows its numbers aren't surely nearer than always answering the mean of the targets "
        f"(R² {r2:.4g}, interval {low:.4g} to {high:.4g})",
        _cure(answers, y),
        r2 if np.isfinite(r2) else -1.0,
    )


def _r2(answers: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    return float(1 - np.sum((y - answers) ** 2) / max(np.sum((y - y.mean()) ** 2), np.finfo(np.float64).tiny))


def _cure(answers: NDArray[np.float64], y: NDArray[np.float64]) -> str:
    """Return what to look at."""
    from scipy.stats import linregress

    if np.isfinite(answers).all() and np.ptp(answers) > 0:
        line = linregress(answers, y)
        if line.pvalue < CHANCE:
            offset = line.intercept if abs(line.intercept) > SMALL * np.ptp(y) else 0.0
            return (
                f"{line.slope:.4g} · number {offset:+.4g} would have R² {line.rvalue**2:.2f}: is the column of "
                "params.yaml: task.args.label in the unit and on the scale that the model was trained on?"
            )
    return "no other unit or scale helps: is the column of params.yaml: task.args.label what the model was trained on?"
