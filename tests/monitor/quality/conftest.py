"""A baseline with known floors, and streams of rows drawn from a model whose quality is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from slimline.answers import Answers
from slimline.monitor import calibration
from slimline.monitor.baseline import Baseline
from slimline.monitor.signal import Labelled, Predicted
from slimline.promises import promises

LABELS = ("cat", "dog", "owl", "fox")
RECALL = np.array([0.95, 0.9, 0.85, 0.7])
Rows = tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]


def answered(rng: np.random.Generator, truth: NDArray[np.int64], recall: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return log-probabilities of a model with such a recall a class: unsure where it is likely to err."""
    right = rng.random(len(truth)) < recall[truth]
    answers = np.where(right, truth, (truth + rng.integers(1, 4, len(truth))) % 4)
    sure = np.where(right, rng.beta(8, 1, len(truth)), rng.beta(3, 2, len(truth))) * 0.7 + 0.28
    out = np.repeat(((1 - sure) / 3)[:, None], 4, axis=1)
    out[np.arange(len(truth)), answers] = sure
    return np.log(out).astype(np.float32)


@pytest.fixture
def drawn() -> Callable[..., Rows]:
    """Return (truth, the teacher's raw outputs, the last stage's) of so many rows; both agree for the most part."""

    def draw(count: int, seed: int, recall: NDArray[np.float64] = RECALL, mix: tuple[float, ...] = (0.25,) * 4) -> Rows:
        rng = np.random.default_rng(seed)
        truth = rng.choice(4, count, p=mix)
        own = answered(rng, truth, recall)
        teacher = np.where(rng.random((count, 1)) < 0.98, own, answered(rng, truth, RECALL + 0.01))
        return truth, teacher.astype(np.float32), own

    return draw


@pytest.fixture
def measured() -> dict[str, Any]:
    """A benchmark of a teacher and a last stage that is as good, on 1,000 rows a class."""

    def row(recall: NDArray[np.float64]) -> dict[str, Any]:
        table = {
            label: {"rows": 1000, "recall": float(value), "agreement": 0.97}
            for label, value in zip(LABELS, recall, strict=True)
        }
        return {"accuracy": float(recall.mean()), "agreement": 0.97, "per_class": table}

    return {
        "primary": "accuracy", "higher_is_better": True,
        "stages": {"teacher": row(RECALL + 0.005), "prune": row(RECALL)},
    }  # fmt: skip


@pytest.fixture
def known(measured: dict[str, Any], drawn: Callable[..., Rows]) -> Baseline:
    """What a release of that benchmark promises at a budget of two points."""
    promised = promises(
        measured, "prune", {"max_drop": {"accuracy": 0.02}}, [{"what": "drop of accuracy", "ok": True}], LABELS,
        agreement_drop=0.02,
    )  # fmt: skip
    answers = Answers({"outputs": [{"name": "logits", "shape": ["batch", 4]}], "labels": list(LABELS)})
    truth, teacher, own = drawn(2000, 0)
    reference = {
        "teacher": answers.of({"logits": teacher})[1],
        "prune": answers.of({"logits": own})[1],
    }
    fitted = calibration.fit(reference["prune"].max(1), reference["prune"].argmax(1) == truth)
    features = {"image.mean": np.random.default_rng(1).normal(size=2000).astype(np.float32)}
    both = {"teacher": answers, "prune": answers}
    return Baseline("prune", LABELS, promised, both, reference, truth, features, fitted, teacher)


@pytest.fixture
def batches(known: Baseline) -> Callable[..., tuple[Predicted, Labelled]]:
    """Return rows as the monitor reads them: a request a row and a second from ``at`` on, all sampled and labelled."""

    def make(rows: Rows, at: int = 0, shift: float = 0.0) -> tuple[Predicted, Labelled]:
        truth, teacher, own = rows
        order = np.arange(len(truth))
        time = (at + order).astype(np.float64)
        said = known.outputs("prune", own)
        stages = {"teacher": teacher, "prune": own}
        image = np.random.default_rng(at).normal(size=(len(truth), 1)).astype(np.float32) + np.float32(shift)
        predicted = Predicted(time, {}, said, said.argmax(1), order, stages, order, {"image": np.repeat(image, 4, 1)})
        unknown = np.full(len(truth), np.nan)
        return predicted, Labelled(time, time, said, said.argmax(1), truth, unknown, stages, order)

    return make
