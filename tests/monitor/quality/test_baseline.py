"""What a release promises: the budget's floor or the incumbent's record, never its own; what is read from its files."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slimline import manifest
from slimline.answers import softmax
from slimline.errors import ReleaseError
from slimline.features import input_features
from slimline.monitor import baseline, calibration
from slimline.monitor.accuracy import Accuracy
from slimline.monitor.quality import accuracy, agreement, drift, estimate
from slimline.monitor.signal import Labelled
from slimline.monitor.standing import State
from slimline.monitor.watched import Watched
from slimline.params import Monitor
from slimline.promises import Promises, promises

PASSED = [{"what": "drop of accuracy", "ok": True}, {"what": "bytes", "ok": False}]
FAILED = [{"what": "drop of accuracy", "ok": False}]
BUDGET = {"max_drop": {"accuracy": 0.02}}
LABELS = ("cat", "dog", "owl", "fox")


def made(measured: dict[str, Any], checks: list[dict[str, Any]], budget: dict[str, Any], **more: Any) -> Promises:
    return promises(measured, "prune", budget, checks, LABELS, agreement_drop=0.02, **more)


def test_the_floor_is_the_teachers_less_the_budget(measured: dict[str, Any]) -> None:
    found = made(measured, PASSED, BUDGET)
    assert found.floor == pytest.approx(0.835)
    assert found.classes == pytest.approx([0.935, 0.885, 0.835, 0.685])
    assert found.overall == pytest.approx(0.835)
    assert found.alone is not None
    assert found.classes is not None
    assert (found.alone < found.classes).all()


def test_a_class_that_the_gate_let_fall_is_no_regression(measured: dict[str, Any]) -> None:
    measured["stages"]["prune"]["per_class"]["owl"]["recall"] = 0.75
    assert made(measured, PASSED, BUDGET).classes == pytest.approx([0.935, 0.885, 0.75, 0.685])


def test_a_release_that_was_forced_through_the_gate_promises_what_was_asked_for(measured: dict[str, Any]) -> None:
    own = measured["stages"]["prune"]
    own["agreement"] = 0.7
    for row in own["per_class"].values():
        row["recall"], row["agreement"] = 0.5, 0.7
    found = made(measured, FAILED, BUDGET)
    assert found.classes == pytest.approx([0.935, 0.885, 0.835, 0.685])
    assert found.agreement == pytest.approx([0.815] * 4)
    incumbent = copy.deepcopy(measured["stages"]["teacher"])
    assert made(measured, FAILED, BUDGET, incumbent=incumbent).agreement == pytest.approx([0.95] * 4)


def test_without_a_budget_the_incumbents_record_stands(measured: dict[str, Any]) -> None:
    assert made(measured, PASSED, {}).floor is None
    assert made(measured, PASSED, {}).classes is None
    incumbent = copy.deepcopy(measured["stages"]["teacher"])
    found = made(measured, FAILED, {}, incumbent=incumbent)
    assert found.floor == pytest.approx(0.855)
    assert found.classes == pytest.approx([0.955, 0.905, 0.855, 0.705])


def test_where_rows_have_several_labels_no_class_is_promised_anything(measured: dict[str, Any]) -> None:
    """They have recalls too, but a row has no one class to be held to."""
    found = made(measured, PASSED, BUDGET | {"min_recall": {"fox": 0.6}}, many=True)
    assert found.floor == pytest.approx(0.835)
    assert (found.rows, found.classes, found.alone) == (None, None, None)


def test_a_recall_that_the_budget_names_is_that_classes_floor(measured: dict[str, Any]) -> None:
    found = made(measured, PASSED, BUDGET | {"min_recall": {"fox": 0.6}})
    assert found.alone is not None
    assert found.alone[3] == 0.6


def test_a_metric_that_should_be_low_may_rise_by_the_budget(measured: dict[str, Any]) -> None:
    measured |= {"primary": "rmse", "higher_is_better": False}
    for row in measured["stages"].values():
        row["rmse"] = 2.0
    found = promises(measured, "prune", {"max_drop": {"rmse": 0.5}}, [], None, agreement_drop=0.02)
    assert found.floor == 2.5
    assert found.growth == 1.25


def test_numbers_are_judged_by_how_far_errors_grew(measured: dict[str, Any]) -> None:
    """A task without labels: errors of 0.1 of the range in the teacher's record, a quarter more allowed."""
    measured |= {"primary": "rmse", "higher_is_better": False}
    for row in measured["stages"].values():
        row["rmse"] = 2.0
    promised = promises(measured, "prune", {"max_drop": {"rmse": 0.5}}, [], None, agreement_drop=0.02)
    rng = np.random.default_rng(0)
    truth = np.linspace(0, 10, 2000)
    teacher = (truth + rng.uniform(-2, 2, 2000))[:, None].astype(np.float32)
    known = baseline.Baseline(
        "prune", None, promised, {}, {"teacher": teacher, "prune": teacher}, truth, {}, None
    )  # fmt: skip

    def after(spread: float) -> State:
        signal = Accuracy(known, ("r", "v"), 1e6)
        y = rng.uniform(0, 10, 5000)
        outputs = (y + rng.uniform(-spread, spread, 5000))[:, None].astype(np.float32)
        nothing = np.full(5000, -1)
        signal.labelled(Labelled(y, y, outputs, nothing, nothing, y, {}, np.zeros(0, np.int64)))
        return signal.standings()[0].state

    assert after(2.2) is State.OK
    assert after(3.0) is State.REGRESSED


def test_a_release_is_read_with_what_it_needs(two_releases: tuple[Path, Path]) -> None:
    known = baseline.read(two_releases[0], 0.02)
    assert known.stage == "distill"
    assert known.labels == tuple("0123456789")
    assert set(known.features) == {"image.mean", "image.deviation", "image.roughness"}
    assert known.calibration is not None
    assert known.reference["distill"].sum(1) == pytest.approx(1.0, abs=1e-4)
    assert known.teacher is not None
    assert softmax(known.teacher) == pytest.approx(known.reference["teacher"], abs=1e-6)


def test_an_incumbent_is_read_from_its_own_directory(two_releases: tuple[Path, Path]) -> None:
    """Without a budget the release itself promises nothing: the incumbent's accuracy is the floor."""
    watched = Watched("s", "live", False, Monitor(), two_releases[0], incumbent=two_releases[1])  # noqa: FBT003
    signal = accuracy(watched)
    assert signal is not None
    assert signal.baseline.promises.floor == pytest.approx(0.9)
    assert baseline.read(two_releases[0], 0.02).promises.floor is None


def test_signals_are_made_of_a_release_and_not_without(two_releases: tuple[Path, Path]) -> None:
    watched = Watched("r", "live", False, Monitor(), two_releases[0])  # noqa: FBT003
    nothing = Watched("r", "live", False, Monitor())  # noqa: FBT003
    for make in (accuracy, agreement, estimate, drift):
        signal = make(watched)
        assert signal is not None
        assert signal.standings()[0].state is State.OK
        assert make(nothing) is None


def test_a_damaged_reference_is_one_line(
    two_releases: tuple[Path, Path], resealed: Callable[..., Path], tmp_path: Path
) -> None:
    def cut(folder: Path, _: dict[str, Any]) -> None:
        path = folder / "reference.npz"
        path.write_bytes(path.read_bytes()[:1000])

    broken = resealed(two_releases[0], tmp_path / "broken", cut)
    with pytest.raises(ReleaseError, match=r"reference\.npz: can't be read.*make the release again"):
        baseline.read(broken, 0.02)
    card = resealed(two_releases[0], tmp_path / "card", lambda _, card: card.pop("verdict"))
    assert "verdict" not in manifest.read_json(card / "card.json")
    with pytest.raises(ReleaseError, match=r"card\.json: no 'verdict'"):
        baseline.read(card, 0.02)


@settings(max_examples=25)
@given(slope=st.floats(0.3, 2.0), offset=st.floats(-1.0, 1.0), seed=st.integers(0, 1000))
def test_calibration_finds_what_made_the_rows(slope: float, offset: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.3, 0.999, 4000)
    chance = 1 / (1 + np.exp(-(slope * np.log(confidence / (1 - confidence)) + offset)))
    fitted = calibration.fit(confidence, rng.random(4000) < chance)
    assert fitted(confidence) == pytest.approx(chance, abs=0.12)
    assert fitted.error < 0.06
    assert fitted(np.array([np.nan]))[0] == 0


def test_confidence_that_means_nothing_shows_as_a_calibration_error() -> None:
    rng = np.random.default_rng(0)
    sure = rng.uniform(0.9, 1.0, 3000)
    assert calibration.calibration_error(sure, rng.random(3000) < 0.5) > 0.4


def test_blur_and_padding_show_in_the_inputs_features() -> None:
    rng = np.random.default_rng(0)
    images = rng.normal(size=(600, 1, 8, 8)).astype(np.float32)
    smooth = (images + np.roll(images, 1, axis=-1)) / 2
    rough, smoothed = (input_features({"image": each})["image.roughness"] for each in (images, smooth))
    assert smoothed.mean() < 0.8 * rough.mean()
    tokens = np.array([[5, 6, 0, 0], [1, 2, 3, 0]])
    assert input_features({"ids": tokens})["ids.filled"].tolist() == [0.5, 0.75]
