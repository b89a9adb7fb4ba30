"""How well each row was answered, as a score in [0, 1], and what is promised of it; no task is named here.

With labels a score says whether the answer was right, and is held to the promise for its true class: then another mix
of classes alone breaks no promise. With numbers it is 1 − |error|/range, the range being that of the reference rows'
truth, and the promise follows the metric: a budget that allows the teacher's metric to get worse by a share allows the
mean error to grow by it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slimline.monitor.baseline import Baseline
from slimline.monitor.signal import Labelled
from slimline.pipeline import ROOT

Floats = NDArray[np.float64]
MOST_CLASSES = 100  # more would cost more than 5,000 rows a second allow, and as many series


@dataclass(frozen=True, eq=False)
class Scores:
    """``floor`` of the mean score for the test split's mix, None: nothing is promised. ``classes`` [labels] are the
    promises by true class, ``alone`` [labels] the floors of one class by itself, ``range`` the unit of errors."""

    floor: float | None
    classes: Floats | None = None
    alone: Floats | None = None
    range: float = 1.0

    def known(self, batch: Labelled) -> NDArray[np.bool_]:
        """Return which rows have a truth that the task knows."""
        return batch.labels >= 0 if self.classes is not None else np.isfinite(batch.targets)

    def of(self, batch: Labelled) -> Floats:
        """Return the score of each row of known truth."""
        known = self.known(batch)
        if self.classes is not None:
            right: Floats = (batch.answers[known] == batch.labels[known]).astype(np.float64)
            return right
        errors = np.abs(batch.outputs[known, 0].astype(np.float64) - batch.targets[known])
        near: Floats = np.nan_to_num(1.0 - np.minimum(errors / self.range, 1.0), nan=0.0)  # no number is no answer
        return near

    def promised(self, batch: Labelled) -> Floats:
        """Return what is promised of each row of known truth; 0 where nothing is."""
        known = self.known(batch)
        if self.classes is not None:
            return self.classes[batch.labels[known]]
        return np.full(int(known.sum()), self.floor or 0.0)


def scores(baseline: Baseline) -> Scores:
    """Return how rows are scored against ``baseline``."""
    promised = baseline.promises
    if baseline.labels:
        if promised.classes is None:
            return Scores(None, np.zeros(len(baseline.labels)))
        few = len(baseline.labels) <= MOST_CLASSES
        return Scores(promised.overall, promised.classes, promised.alone if few else None)
    targets = np.asarray(baseline.targets, np.float64)
    spread = float(np.ptp(targets)) or 1.0
    if promised.floor is None or ROOT not in baseline.reference or targets.ndim != 1:
        return Scores(None, range=spread)
    errors = np.abs(baseline.reference[ROOT][:, 0] - targets) / spread
    return Scores(1.0 - promised.growth * float(np.minimum(errors, 1.0).mean()), range=spread)
