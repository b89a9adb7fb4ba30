"""The signals of quality on streams whose truth is known: what pages, what is watched, what is left alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from slimline.monitor.accuracy import Accuracy
from slimline.monitor.agreement import Agreement
from slimline.monitor.baseline import Baseline
from slimline.monitor.drift import Drift
from slimline.monitor.embedding import Projection
from slimline.monitor.estimate import Estimate
from slimline.monitor.signal import Signal
from slimline.monitor.standing import State

RUN = 1e6
OWN = ("sha256:0", "live")
RECALL = np.array([0.95, 0.9, 0.85, 0.7])
Make = Callable[..., Any]


@pytest.fixture
def signals(known: Baseline) -> Callable[[], list[Signal]]:
    return lambda: [
        Accuracy(known, OWN, RUN), Agreement(known, OWN, RUN, 0.02), Estimate(known, OWN, RUN),
        Drift(known, OWN, RUN, 0.001),
    ]  # fmt: skip


def feed(
    each: list[Signal], drawn: Make, batches: Make, count: int, *, at: int = 0, shift: float = 0.0, **how: Any
) -> None:
    """Feed ``count`` rows in batches of 250."""
    for start in range(at, at + count, 250):
        predicted, labelled = batches(drawn(250, start + 7, **how), start, shift)
        for signal in each:
            signal.predicted(predicted)
            signal.labelled(labelled)


def states(each: list[Signal]) -> dict[str, State]:
    return {standing.signal: standing.state for signal in each for standing in signal.standings()}


def test_a_release_that_keeps_its_promises_is_ok(signals: Make, drawn: Make, batches: Make) -> None:
    each = signals()
    feed(each, drawn, batches, 10_000)
    assert set(states(each).values()) == {State.OK}
    whole = each[0].standings()[0]
    assert whole.count == 10_000
    assert whole.interval is not None
    assert whole.interval[0] < 0.85 < whole.interval[1]
    assert whole.limit == pytest.approx(0.835, abs=1e-6)


def test_twelve_points_lost_page_within_500_labels_and_1500_sampled_rows(
    signals: Make, drawn: Make, batches: Make
) -> None:
    each = signals()
    feed(each, drawn, batches, 1000)
    feed(each, drawn, batches, 1500, at=1000, recall=RECALL - 0.12)
    accuracy, agreement = each[0].standings()[0], each[1].standings()[0]
    assert accuracy.state is State.REGRESSED
    assert 1000 < accuracy.since <= 1500
    assert accuracy.evidence is not None
    assert accuracy.evidence >= RUN
    assert "below its floor" in accuracy.message
    assert agreement.state is State.OK  # here the teacher errs alike: nothing to see for it


def test_disagreement_with_the_teacher_pages(signals: Make, drawn: Make, batches: Make) -> None:
    each = signals()
    feed(each, drawn, batches, 1000)
    for start in range(1000, 2500, 250):
        truth, teacher, own = drawn(250, start)
        broken = np.where((np.arange(250) % 8 == 0)[:, None], -own, own)
        each[1].predicted(batches((truth, teacher, broken), start)[0])
    agreement = each[1].standings()[0]
    assert agreement.state is State.REGRESSED
    assert 1000 < agreement.since <= 2500
    bounds = {sample.labels["bound"] for sample in each[1].samples()}
    assert bounds == {"low", "value", "high", "floor"}


def test_a_stage_that_failed_is_no_agreement_and_a_missing_teacher_no_row(
    known: Baseline, drawn: Make, batches: Make
) -> None:
    agreement = Agreement(known, OWN, RUN, 0.02)
    truth, teacher, own = drawn(200, 5)
    missing, failed = teacher.copy(), own.copy()
    missing[:100] = np.nan
    failed[100:150] = np.nan
    predicted, _ = batches((truth, teacher, own))
    drift = Drift(known, OWN, RUN, 0.001)
    for signal in (agreement, drift):
        signal.predicted(replace(predicted, stages={"teacher": missing, "prune": failed}))
    standing = agreement.standings()[0]
    assert standing.count == 100
    assert standing.value is not None
    assert standing.value <= 0.5
    assert np.isfinite([sample.value for sample in drift.samples()]).all()


def test_one_lost_class_is_named(signals: Make, drawn: Make, batches: Make) -> None:
    each = signals()
    feed(each, drawn, batches, 2000, recall=np.array([0.4, 0.9, 0.85, 0.7]))
    found = states(each)
    assert found["accuracy"] is State.REGRESSED
    assert found["accuracy/cat"] is State.REGRESSED
    assert found["accuracy/dog"] is State.OK
    assert "cat" in each[0].standings()[0].message


def test_other_shares_of_classes_are_watched_never_paged(signals: Make, drawn: Make, batches: Make) -> None:
    """Mostly foxes, of which 70% are right as ever: the ratio falls to 0.75, far below the overall floor of 0.835."""
    each = signals()
    feed(each, drawn, batches, 10_000, mix=(0.1, 0.05, 0.05, 0.8))
    found = states(each)
    assert found["accuracy"] is State.WATCH
    assert "the mix of classes explains it" in each[0].standings()[0].message
    assert found["drift"] is State.WATCH
    assert "answers" in each[3].standings()[0].message
    assert State.REGRESSED not in found.values()


def test_drifted_inputs_are_watched_and_harm_nothing(signals: Make, drawn: Make, batches: Make) -> None:
    each = signals()
    feed(each, drawn, batches, 2000, shift=1.0)
    found = states(each)
    assert found["drift"] is found["drift/input"] is State.WATCH
    assert "image.mean drifted" in each[3].standings()[0].message
    assert {state for name, state in found.items() if not name.startswith("drift")} == {State.OK}


def test_logits_and_log_probabilities_are_the_same_embedding(drawn: Make) -> None:
    _, raw, _ = drawn(500, 3)
    level = np.random.default_rng(0).normal(size=(500, 1)).astype(np.float32)
    projection = Projection(raw, logits=True)
    there, here = projection.of(raw), projection.of(raw + level)
    assert len(there) == 4
    for name, values in there.items():
        assert here[name] == pytest.approx(values, abs=1e-4)
    numbers = Projection(raw, logits=False)
    assert np.abs(numbers.of(raw + level)["projection.0"] - numbers.of(raw)["projection.0"]).max() > 0.1


def test_other_runners_up_drift_though_answers_and_confidence_stay(known: Baseline, drawn: Make, batches: Make) -> None:
    """What the teacher is unsure between is another class than before: its whole output vector alone shows that."""
    drift = Drift(known, OWN, RUN, 0.001)
    rows = np.arange(250)
    for start in range(0, 4000, 250):
        truth, teacher, own = drawn(250, start)
        if start >= 2000:
            answers = teacher.argmax(1)
            chance = np.exp(teacher[rows, answers])
            teacher = np.full((250, 4), np.log(1e-4), np.float32)
            teacher[rows, answers] = np.log(chance)
            teacher[rows, (answers + 1) % 4] = np.log(1 - chance - 2e-4)
        drift.predicted(batches((truth, teacher, own), start)[0])
        if start < 2000:
            assert {standing.state for standing in drift.standings()} == {State.OK}
    whole, of_input = drift.standings()
    assert whole.state is of_input.state is State.WATCH
    assert "teacher.projection." in of_input.message
    assert "answers" not in of_input.message
    assert "confidence" not in of_input.message
    shown = {sample.labels["feature"] for sample in drift.samples()}
    assert {f"teacher.projection.{number}" for number in range(4)} < shown


def test_an_alarm_ends_when_the_promise_is_kept_again(signals: Make, drawn: Make, batches: Make) -> None:
    each = signals()[:1]
    feed(each, drawn, batches, 1000, recall=RECALL - 0.2)
    assert states(each)["accuracy"] is State.REGRESSED
    feed(each, drawn, batches, 4000, at=1000)
    assert states(each)["accuracy"] is State.OK
    assert each[0].standings()[0].since > 1000


def test_less_confidence_pages_until_labels_contradict_it(known: Baseline, drawn: Make, batches: Make) -> None:
    estimate = Estimate(known, OWN, RUN)
    for start in range(0, 4000, 250):
        predicted, labelled = batches(drawn(250, start), start)
        unsure = np.full_like(predicted.outputs, 0.0)
        unsure[np.arange(250), predicted.answers] = predicted.outputs.max(1) * 0.6
        unsure += (1 - unsure.sum(1, keepdims=True)) / 4
        estimate.predicted(replace(predicted, outputs=unsure))
        if start == 1750:
            assert estimate.standings()[0].state is State.REGRESSED
        if start >= 2000:
            estimate.labelled(replace(labelled, outputs=unsure))
    standing = estimate.standings()[0]
    assert standing.state is State.WATCH
    assert "labels since then contradict" in standing.message
    shown = {sample.metric: sample.value for sample in estimate.samples()}
    assert shown["slimline_estimate_error_ratio"] < -0.1
    assert 0 <= shown["slimline_calibration_error_ratio"] < 0.05


def test_restored_signals_go_on_as_if_nothing_happened(signals: Make, drawn: Make, batches: Make) -> None:
    whole, parts = signals(), signals()
    for start in range(0, 3000, 500):
        worse = RECALL - (0.1 if start >= 1000 else 0.0)
        feed(whole, drawn, batches, 500, at=start, recall=worse, shift=0.5)
        feed(parts, drawn, batches, 500, at=start, recall=worse, shift=0.5)
        saved = json.loads(json.dumps([signal.dump() for signal in parts]))
        parts = signals()
        for signal, own in zip(parts, saved, strict=True):
            signal.restore(own)
    for a, b in zip(whole, parts, strict=True):
        assert a.dump() == b.dump()
        assert a.standings() == b.standings()
        assert list(a.samples()) == list(b.samples())


def test_what_is_remembered_does_not_grow(signals: Make, drawn: Make, batches: Make) -> None:
    each = signals()
    feed(each, drawn, batches, 3000)
    before = len(json.dumps([signal.dump() for signal in each]))
    feed(each, drawn, batches, 6000, at=3000)
    assert len(json.dumps([signal.dump() for signal in each])) < 1.1 * before


def test_rows_without_a_known_truth_are_left_out(signals: Make, drawn: Make, batches: Make) -> None:
    accuracy = signals()[0]
    _, labelled = batches(drawn(200, 1))
    accuracy.labelled(replace(labelled, labels=np.where(np.arange(200) < 50, labelled.labels, -1)))
    accuracy.labelled(replace(labelled, labels=np.full(200, -1)))
    assert accuracy.standings()[0].count == 50
