"""What a release promises of its quality, from what was measured before it was deployed. Imports no torch.

A promise is the teacher's record on the test split less the budget's drop, or the incumbent's record. What the release
itself did on the test split promises nothing; it is asked for two things alone, and only if its gate passed: by which
classes it spent its budget, and how often it agreed with the teacher.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Promises:
    """``metric`` is the task's primary; ``floor`` its least value (its most, where lower is better), None: no promise.

    ``growth`` is how many times the teacher's error may be reached.

    For a task whose rows have one label each, by true class: ``rows`` on the test split, ``classes`` the mean score
    that is promised over all classes together, ``alone`` the mean of one class below which it counts as lost by itself.
    For any task with labels, by the teacher's answer: ``agreement`` with it. All [labels], or None.
    """

    metric: str
    higher_is_better: bool
    floor: float | None
    growth: float
    rows: Floats | None
    classes: Floats | None
    alone: Floats | None
    agreement: Floats | None

    @property
    def overall(self) -> float | None:
        """The mean score that is promised for the test split's mix of classes."""
        if self.classes is None or self.rows is None:
            return None
        return float(np.average(self.classes, weights=self.rows))


def promises(
    measured: Mapping[str, Any],
    stage: str,
    budget: Mapping[str, Any],
    checks: Sequence[Mapping[str, Any]],
    labels: Sequence[str] | None,
    *,
    agreement_drop: float,
    many: bool = False,
    incumbent: Mapping[str, Any] | None = None,
) -> Promises:
    """Return what ``stage`` promises. ``many``: rows have any of several labels, so none is a row's true class.

    ``measured`` is its benchmark.json, ``checks`` its gate's verdict, ``incumbent`` the benchmark's row of the stage
    that served before it.
    """
    teacher, own = measured["stages"]["teacher"], measured["stages"][stage]
    metric = str(measured.get("primary", "accuracy"))
    higher = bool(measured.get("higher_is_better", True))
    drop = (budget.get("max_drop") or {}).get(metric)
    base = teacher if drop is not None else incumbent
    passed = accepted(checks)
    floor = None if base is None or metric not in base else base[metric] - (1 if higher else -1) * (drop or 0.0)
    rows = classes = alone = None
    if labels and not many and base is not None and base.get("per_class"):
        rows = _column(base, labels, "rows", 0.0)
        overall = float(np.nansum(rows * _column(base, labels, "recall", np.nan)) / rows.sum())
        classes = _column(base, labels, "recall", overall) - (drop or 0.0)
        if passed and own.get("per_class"):
            classes = np.minimum(classes, _column(own, labels, "recall", 1.0))
        alone = _below(classes, np.maximum(rows, 1), 1 - (1 - budget.get("confidence", 0.95)) / len(labels))
        least = budget.get("min_recall") or {}
        alone = np.array([least.get(label, value) for label, value in zip(labels, alone, strict=True)])
    agreement = _agreement(labels, own if passed or incumbent is None else incumbent, agreement_drop)
    if agreement is not None and not passed and incumbent is None and floor is not None and 0 < floor < 1:
        # a calibrated student disagrees as often as it errs (Jiang et al. 2022, arXiv:2106.13799)
        agreement = np.maximum(agreement, floor - agreement_drop)
    growth = 1.0
    if base is not None and metric in base and drop:
        error = 1 - base[metric] if higher else base[metric]  # of a metric whose best is 1, or 0
        growth = (error + drop) / error if error > 0 else 1.0
    return Promises(metric, higher, floor, growth, rows, classes, alone, agreement)


def accepted(checks: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether the gate passed the quality of a release, whatever it said of speed and size."""
    quality = [check["ok"] for check in checks if kind_of(check) in {"drop", "recall", "teacher"}]
    return bool(quality) and all(quality)


def kind_of(check: Mapping[str, Any]) -> str:
    """Return the kind of a line of the gate's verdict; in older cards it is the first word of its text."""
    return str(check.get("kind") or check["what"].split()[0])


def _agreement(labels: Sequence[str] | None, row: Mapping[str, Any], drop: float) -> Floats | None:
    if not labels or "agreement" not in row:
        return None
    table = row.get("per_class") or {}
    return np.array([table.get(label, {}).get("agreement", row["agreement"]) for label in labels]) - drop


def _column(row: Mapping[str, Any], labels: Sequence[str], key: str, missing: float) -> Floats:
    return np.array([row["per_class"].get(label, {}).get(key, missing) for label in labels], np.float64)


def _below(shares: Floats, rows: Floats, confidence: float) -> Floats:
    """Return Wilson's lower limit of a share that was measured on so many rows."""
    z = NormalDist().inv_cdf(confidence)
    p = np.clip(shares, 0.0, 1.0)
    middle = (p + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z / (1 + z * z / rows) * np.sqrt(p * (1 - p) / rows + z * z / (4 * rows * rows))
    low: Floats = middle - half
    return low
