"""Rows that any of several labels may hold for: the sets answered are compared, and a common shift is seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from slimline.answers import Answers
from slimline.manifest import digest
from slimline.monitor.agreement import Agreement
from slimline.monitor.baseline import Baseline
from slimline.monitor.drift import Drift
from slimline.monitor.quality import accuracy, agreement, drift, estimate
from slimline.monitor.signal import Predicted
from slimline.monitor.standing import State
from slimline.monitor.watched import read
from slimline.promises import promises

LABELS = ("cat", "dog", "owl")
OWN = ("sha256:0", "live")
RUN = 1e6
Floats = NDArray[np.float32]


def answers(thresholds: list[float]) -> Answers:
    outputs = [{"name": "logits", "shape": ["batch", 3]}]
    return Answers({"outputs": outputs, "labels": list(LABELS), "answer": "many", "thresholds": thresholds})


def logits(count: int, seed: int) -> Floats:
    """Each label holds for a third of the rows by itself, and its logit says so: none lies between -1 and 1."""
    rng = np.random.default_rng(seed)
    sure = 1 + rng.exponential(size=(count, 3))
    return np.asarray(np.where(rng.random((count, 3)) < 1 / 3, sure, -sure), np.float32)


@pytest.fixture
def known() -> Baseline:
    """A last stage that answers as the teacher does, each above thresholds of its own."""
    row = {"micro_f1": 0.9, "agreement": 0.98}
    measured: dict[str, Any] = {"primary": "micro_f1", "stages": {"teacher": row, "prune": row}}
    checks = [{"what": "drop of micro_f1", "ok": True}]
    promised = promises(measured, "prune", {}, checks, LABELS, agreement_drop=0.02)
    both = {"teacher": answers([0.5, 0.5, 0.5]), "prune": answers([0.4, 0.5, 0.6])}
    raw = logits(2000, 0)
    reference = {stage: own.of({"logits": raw})[1] for stage, own in both.items()}
    return Baseline("prune", LABELS, promised, both, reference, (raw > 0).astype(np.float32), {}, None, raw)


def batch(known: Baseline, teacher: Floats, own: Floats, at: int = 0) -> Predicted:
    order = np.arange(len(own))
    said = known.outputs("prune", own)
    nobody = np.full(len(own), -1)
    return Predicted(
        (at + order).astype(np.float64), {}, said, nobody, order, {"teacher": teacher, "prune": own}, order
    )


def test_one_label_more_is_another_answer(known: Baseline) -> None:
    """The likeliest label stays what it was: by that alone all rows would agree."""
    agreement = Agreement(known, OWN, RUN, 0.02)
    for start in range(0, 1000, 250):
        teacher = logits(250, start)
        agreement.predicted(batch(known, teacher, teacher, start))
    assert agreement.standings()[0].value == 1.0
    assert agreement.standings()[0].state is State.OK
    for start in range(1000, 2000, 250):
        teacher = logits(250, start)
        own = teacher.copy()
        rows = np.flatnonzero(own.max(1) > 0)[::3]
        own[rows, own[rows].argmin(1)] = 0.5  # above its threshold, below the likeliest
        agreement.predicted(batch(known, teacher, own, start))
    assert agreement.standings()[0].state is State.REGRESSED


def test_each_stage_answers_by_its_own_thresholds(known: Baseline) -> None:
    agreement = Agreement(known, OWN, RUN, 0.02)
    level = np.log(np.array([[0.45, 0.2, 0.55]], np.float32) / (1 - np.array([[0.45, 0.2, 0.55]], np.float32)))
    agreement.predicted(batch(known, np.repeat(level, 10, 0), np.repeat(level, 10, 0)))
    assert agreement.standings()[0].value == 0.0, "owl by the teacher's thresholds, cat by the last stage's"


def test_a_common_shift_of_the_logits_is_drift(known: Baseline) -> None:
    """With a sigmoid a label it is another answer; less its mean, a row would look as it did."""
    drift = Drift(known, OWN, RUN, 0.001)
    for start in range(0, 2000, 250):
        drift.predicted(batch(known, logits(250, start + 1), logits(250, start + 1), start))
    assert {each.state for each in drift.standings()} == {State.OK}
    own = logits(2000, 77)
    projected = drift.projection.of(own + 1.0) if drift.projection else {}
    assert np.abs(projected["projection.0"] - drift.projection.of(own)["projection.0"]).min() > 0.1  # type: ignore[union-attr]
    for start in range(2000, 4000, 250):
        raw = logits(250, start + 1)
        drift.predicted(batch(known, raw - 1.5, raw, start))
    _, of_input = drift.standings()
    assert of_input.state is State.WATCH
    assert "teacher.projection." in of_input.message


def test_of_a_release_agreement_and_drift_are_watched(many_release: Path) -> None:
    """Right or wrong by one label a row would be neither."""
    watched = read(digest(many_release), "main", shadow=False, release=many_release, chosen=None)
    assert accuracy(watched) is None
    assert estimate(watched) is None
    assert agreement(watched) is not None
    assert drift(watched) is not None
