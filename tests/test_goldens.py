"""A release answers its golden requests, and one that answers otherwise is refused with the distance."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slimline import goldens, manifest
from slimline.answers import Answers
from slimline.errors import GoldenError
from slimline.predictor import Predictor

HERE = {"instructions": ["avx2", "avx512f", "avx512_vnni"], "onnxruntime": "1.2.3"}
ROWS, LABELS = 32, 10


def scores(labels: int, width: int = LABELS, **rest: Any) -> Answers:
    """How outputs [rows, width] are read: a score each where they are as many as the labels."""
    outputs = [{"name": "logits", "shape": ["batch", width]}]
    return Answers({"outputs": outputs, "labels": [str(at) for at in range(labels)], **rest})


@pytest.fixture
def golden() -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).normal(size=(ROWS, LABELS)).astype(np.float32)


@pytest.fixture(scope="module")
def predictors(two_releases: tuple[Path, Path]) -> Iterator[tuple[Predictor, Predictor]]:
    made = Predictor(two_releases[0]), Predictor(two_releases[1])
    yield made
    for each in made:
        each.close()


def test_a_release_answers_as_when_it_was_made(
    predictors: tuple[Predictor, Predictor], two_releases: tuple[Path, Path]
) -> None:
    found = goldens.check(predictors[0], two_releases[0])
    assert (found.stage, found.rows, found.same_cpu, found.answers) == ("distill", 16, True, 16)
    assert found.largest <= 1e-6
    assert str(found).startswith("16 golden requests: ")


def test_another_models_answers_are_refused_with_the_distance(
    predictors: tuple[Predictor, Predictor], two_releases: tuple[Path, Path]
) -> None:
    with pytest.raises(GoldenError, match=r"distill doesn't answer its golden requests: more than 0\.001 .* of 16 "):
        goldens.check(predictors[1], two_releases[0])


def test_a_stage_is_compared_with_its_own_goldens(two_releases: tuple[Path, Path]) -> None:
    predictor = Predictor(two_releases[1] / "chain" / "teacher")
    assert goldens.check(predictor, two_releases[1], stage="teacher").largest <= 1e-6
    with pytest.raises(GoldenError, match="distill doesn't answer"):
        goldens.check(predictor, two_releases[1])
    with pytest.raises(GoldenError, match=r"golden\.npz: no stage 'prune'; it holds teacher, distill"):
        goldens.check(predictor, two_releases[1], stage="prune")
    predictor.close()


def test_another_cpu_than_the_benchmarks_is_judged_loosely(
    predictors: tuple[Predictor, Predictor], two_releases: tuple[Path, Path], tmp_path: Path
) -> None:
    foreign = tmp_path / "foreign"
    shutil.copytree(two_releases[0], foreign)
    card = manifest.read_json(foreign / "card.json")
    card["benchmark"]["machine"]["instructions"] = ["another"]
    manifest.write_json(foreign / "card.json", card)
    arrays = dict(np.load(foreign / "golden.npz"))
    arrays["output/distill"] *= 1.01
    np.savez(foreign / "golden.npz", **arrays)
    found = goldens.check(predictors[0], foreign)
    assert not found.same_cpu
    assert 0.005 < found.largest < 0.02
    arrays["output/distill"] *= 1.2
    np.savez(foreign / "golden.npz", **arrays)
    with pytest.raises(GoldenError, match="root mean square away"):
        goldens.check(predictors[0], foreign)


def test_goldens_that_cannot_be_read_are_an_error_naming_the_file(
    predictors: tuple[Predictor, Predictor], two_releases: tuple[Path, Path], tmp_path: Path
) -> None:
    shutil.copytree(two_releases[0], tmp_path / "r")
    (tmp_path / "r" / "golden.npz").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(GoldenError, match=r"golden\.npz: can't be read"):
        goldens.check(predictors[0], tmp_path / "r")


def noise(size: float) -> Callable[[Any], Any]:
    return lambda golden: (
        golden + size * np.abs(golden).max() * np.sign(np.random.default_rng(1).normal(size=golden.shape))
    )


def swapped(rows: int) -> Callable[[Any], Any]:
    """The two best classes change places in so many rows, by the least change that does it."""

    def change(golden: Any) -> Any:
        near = golden.copy()
        for row in near[:rows]:
            second, first = np.argsort(row)[-2:]
            row[first], row[second] = row[second], row[first]
        return near

    return change


@pytest.mark.parametrize(
    ("change", "same_cpu", "other_cpu"),
    [
        pytest.param(noise(0.0), True, True, id="equal"),
        pytest.param(noise(0.0009), True, True, id="rounding"),
        pytest.param(noise(0.0011), False, True, id="more than rounding"),
        pytest.param(noise(0.1), False, False, id="far"),
        pytest.param(lambda golden: golden * np.nan, False, False, id="NaN"),
        pytest.param(np.zeros_like, False, False, id="nothing"),
    ],
)
def test_tolerance_by_class_of_cpu(change: Callable[[Any], Any], same_cpu: bool, other_cpu: bool, golden: Any) -> None:
    for same, ok in ((True, same_cpu), (False, other_cpu)):
        found = goldens.compare("distill", change(golden), golden, same_cpu=same, answers=scores(LABELS))
        assert (goldens._mistake(found) is None) is ok, found


@pytest.mark.parametrize(("rows", "ok"), [(2, True), (3, False)])
def test_on_another_cpu_one_answer_in_16_may_differ(rows: int, ok: bool, golden: Any) -> None:
    level = golden.copy()
    order = np.argsort(golden, axis=1)
    level[np.arange(ROWS), order[:, -2]] = level[np.arange(ROWS), order[:, -1]] - 0.01
    found = goldens.compare("distill", swapped(rows)(level), level, same_cpu=False, answers=scores(LABELS))
    assert found.answers == ROWS - rows
    assert goldens._mistake(found) == (None if ok else "3 answers differ")


def test_of_any_of_several_labels_the_sets_answered_are_compared(golden: Any) -> None:
    """A label that falls below its threshold is another answer, though the likeliest stays."""
    many = scores(LABELS, answer="many", thresholds=[0.4] * LABELS)
    level = np.where(golden > 0, 3.0, -3.0)
    level[:, 0] = 4.0
    fallen = level.copy()
    fallen[0, :] = np.where(level[0] == 3.0, -0.5, level[0])  # a probability of 0.38
    assert (level[0] == 3.0).any()
    found = goldens.compare("distill", fallen, level, same_cpu=False, answers=many)
    assert found.answers == ROWS - 1
    near = goldens.compare("distill", level - 3.1, level, same_cpu=False, answers=many)
    assert near.answers == ROWS, "0.48 is above 0.4"


def test_numbers_that_are_no_classes_have_no_answers(golden: Any) -> None:
    assert goldens.compare("distill", golden, golden, same_cpu=True, answers=scores(0)).answers is None
    assert goldens.compare("distill", golden[:, :1], golden[:, :1], same_cpu=True, answers=scores(2, 1)).answers is None


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"processor": "Other", "cores": 64}, True),
        ({"onnxruntime": "1.3.0"}, False),
        ({"instructions": ["avx2"]}, False),
    ],
)
def test_class_of_cpu(change: dict[str, Any], same: bool) -> None:
    assert goldens.same_class(HERE, HERE | change) is same


@pytest.mark.parametrize(
    ("instructions", "said"),
    [
        (["avx2", "avx512f", "avx512_vnni"], None),
        (["avx2", "avx512f", "avx512_vnni", "amx_int8"], None),
        (["avx2", "avx512f"], "may saturate"),
        (["avx2", "avx_vnni"], "latencies measured there don't hold"),
    ],
)
def test_missing_instructions_are_a_risk_that_is_named(instructions: list[str], said: str | None) -> None:
    found = goldens.risk(HERE, {"instructions": instructions})
    assert (found is None) if said is None else (found is not None and said in found)
