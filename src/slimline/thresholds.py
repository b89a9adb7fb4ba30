"""Where the probability of a label that may stand beside others starts to mean yes. Needs no torch.

    t_j = argmax_t F1_j(t),    F1_j(t) = 2·TP / (rows with p_j > t + rows that have the label)

F1 changes only between two neighbours of the sorted probabilities; the threshold lies half-way between the two. Lipton
et al. 2014, arXiv:1402.1892: the best threshold is half the best F1 where probabilities are calibrated, and no fixed
one elsewhere.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

HALF = 0.5
FEWEST = 10  # rows with and without a label; of fewer, the best cut is chance


def fit(probabilities: NDArray[Any], truth: NDArray[np.bool_]) -> list[float]:
    """Return one threshold a label for probabilities and truth, rows × labels.

    Of cuts of the same F1 the middle one is taken. A label that fewer than ``FEWEST`` rows have, or lack, keeps one
    half, and so does one that has the probability 0 in all rows.
    """
    return [_best(probabilities[:, at].astype(np.float64), truth[:, at]) for at in range(truth.shape[1])]


def _best(p: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    positives = int(truth.sum())
    if min(positives, len(truth) - positives) < FEWEST:
        return HALF
    order = np.argsort(-p, kind="stable")
    p = np.append(p[order], 0.0)
    hits = np.cumsum(truth[order])  # [k-1]: of the k most probable rows
    cuts = np.flatnonzero(p[:-1] > p[1:])  # between equal probabilities there is none
    if not len(cuts):
        return HALF
    f1 = 2 * hits[cuts] / (cuts + 1 + positives)
    best = cuts[f1 >= f1.max() - 1e-12]
    cut = best[(len(best) - 1) // 2]
    return float((p[cut] + p[cut + 1]) / 2)
