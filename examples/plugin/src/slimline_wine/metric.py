"""Metrics are classes: ``Metric()(answers, targets) -> float``, with ``higher_is_better``."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class BalancedAccuracy:
    """Mean over classes of the share of their rows that is answered right: a rare class counts like a common one."""

    higher_is_better = True

    def __call__(self, answers: NDArray[Any], targets: NDArray[Any]) -> float:
        return float(np.mean([np.mean(answers[targets == label] == label) for label in np.unique(targets)]))
