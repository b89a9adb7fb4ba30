from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from slimline import metrics
from slimline.models.cnn import Cnn
from slimline.task import Split
from slimline.tasks.digits import Digits


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60))
def test_macro_f1_is_scikit_learns(pairs: list[tuple[int, int]]) -> None:
    answers, targets = np.array(pairs).T
    assert metrics.MacroF1()(answers, targets) == pytest.approx(f1_score(targets, answers, average="macro"))


def test_accuracy_is_the_share_of_right_answers() -> None:
    assert metrics.Accuracy()(np.array([1, 2, 3, 4]), np.array([1, 2, 3, 0])) == 0.75


@pytest.mark.parametrize("batch_size", [7, 60, 500])
def test_outputs_do_not_depend_on_the_batches(
    cnn: Cnn, splits: dict[str, Split], batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = splits["validation"].head(60)
    cnn.train()
    monkeypatch.setattr("slimline.task.BATCH", batch_size)
    found = metrics.outputs(cnn, split)
    assert cnn.training, "the mode is given back"
    with torch.inference_mode():
        expected = cnn.eval()(torch.from_numpy(split.inputs["image"]))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_evaluate_gives_the_tasks_metrics(cnn: Cnn, task: Digits, splits: dict[str, Split]) -> None:
    found = metrics.evaluate(cnn, task, splits["validation"])
    assert set(found) == {"accuracy", "macro_f1"}
    assert found["accuracy"] > 0.7
