"""How often an answer of a given confidence is right: fitted on validation rows, checked on those left out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

FOLDS = 5
BINS = 15
EDGE = 1e-6


@dataclass(frozen=True)
class Calibration:
    """P(right | confidence c) = σ(slope·log(c/(1 − c)) + offset), Platt 1999 on the confidence's own log-odds.

    ``error`` is the expected calibration error Σ_b (n_b/n)·|mean confidence − share right| over 15 bins of equal counts
    (Naeini et al. 2015, AAAI), of rows that the fit didn't see.
    """

    slope: float
    offset: float
    error: float

    def __call__(self, confidence: NDArray[np.floating]) -> Floats:
        """Return the chance to be right of each confidence in [0, 1]; 0 where it is NaN."""
        return np.nan_to_num(_sigmoid(self.slope * _log_odds(confidence) + self.offset), nan=0.0)


def fit(confidence: NDArray[np.floating], right: NDArray[np.bool_]) -> Calibration:
    """Fit on rows of known truth; ``error`` is from five-fold cross-fitting."""
    odds = _log_odds(confidence)
    held_out = np.empty(len(odds))
    for fold in range(FOLDS):
        out = np.arange(len(odds)) % FOLDS == fold
        slope, offset = _newton(odds[~out], right[~out])
        held_out[out] = _sigmoid(slope * odds[out] + offset)
    return Calibration(*_newton(odds, right), calibration_error(held_out, right))


def calibration_error(chance: Floats, right: NDArray[np.bool_]) -> float:
    """Return the expected calibration error of ``chance`` against ``right``, both [rows]."""
    order = np.argsort(chance, kind="stable")
    gaps = [abs(float(part.sum())) for part in np.array_split(chance[order] - right[order], BINS)]
    return float(sum(gaps) / max(len(chance), 1))


def _log_odds(confidence: NDArray[np.floating]) -> Floats:
    c = np.clip(np.asarray(confidence, np.float64), EDGE, 1 - EDGE)
    odds: Floats = np.log(c / (1 - c))
    return odds


def _sigmoid(x: Floats) -> Floats:
    y: Floats = 0.5 * (1 + np.tanh(x / 2))
    return y


def _newton(odds: Floats, right: NDArray[np.bool_]) -> tuple[float, float]:
    """Return the slope and offset of greatest likelihood, with Platt's smoothed targets and a prior on slope 1."""
    hits, misses = int(right.sum()), int((~right).sum())
    y = np.where(right, (hits + 1) / (hits + 2), 1 / (misses + 2))
    design = np.stack([odds, np.ones_like(odds)], axis=1)
    prior, weight = np.array([1.0, 0.0]), np.diag([1.0, 1e-3])

    def loss(beta: Floats) -> float:
        chance = -np.logaddexp(0.0, -design @ beta), -np.logaddexp(0.0, design @ beta)  # logs of p and of 1 − p
        return float(-(y * chance[0] + (1 - y) * chance[1]).sum() + (beta - prior) @ weight @ (beta - prior) / 2)

    beta = prior.copy()
    for _ in range(50):
        p = _sigmoid(design @ beta)
        gradient = design.T @ (p - y) + weight @ (beta - prior)
        curvature = (design * (p * (1 - p))[:, None]).T @ design + weight
        step = np.linalg.solve(curvature, gradient)
        length, before = 1.0, loss(beta)
        while loss(beta - length * step) > before and length > 1e-6:  # a whole step may lead beyond the least loss
            length /= 2
        beta -= length * step
        if np.abs(length * step).max() < 1e-10:
            break
    return float(beta[0]), float(beta[1])
