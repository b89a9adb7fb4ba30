"""Thresholds of labels that may stand side by side: the best F1 on the rows they are fitted on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from slimline import thresholds
from slimline.answers import Answers
from slimline.errors import ParamsError
from slimline.tasks.text import text


def f1(p: NDArray[np.float64], truth: NDArray[np.bool_], threshold: float) -> float:
    yes = p > threshold
    return float(2 * (yes & truth).sum() / max(yes.sum() + truth.sum(), 1))


@given(st.integers(0, 2**32 - 1), st.sampled_from([3, 20, 1000]))
def test_no_threshold_has_a_better_f1(seed: int, levels: int) -> None:
    """``levels`` few: many rows share a probability."""
    rng = np.random.default_rng(seed)
    truth = rng.random((200, 1)) < 0.3
    p = np.round(np.clip(rng.normal(0.2 + 0.2 * truth, 0.2), 0, 1) * levels) / levels
    (found,) = thresholds.fit(p, truth)
    best = max(f1(p[:, 0], truth[:, 0], each) for each in [-1.0, *np.unique(p)])
    assert f1(p[:, 0], truth[:, 0], found) >= best - 1e-12 or best == f1(p[:, 0], truth[:, 0], -1.0)


def test_the_threshold_lies_in_the_middle_of_the_gap() -> None:
    truth = np.arange(40) < 20
    p = np.where(truth, 0.4, 0.1) + np.linspace(0.01, 0, 40)
    (found,) = thresholds.fit(p[:, None], truth[:, None])
    assert found == pytest.approx((p[truth].min() + p[~truth].max()) / 2)


def test_of_cuts_that_tie_the_middle_one_is_taken() -> None:
    p = np.linspace(0.95, 0.05, 120)
    truth = np.zeros(120, bool)
    truth[:10] = True
    truth[20:30] = True  # 2·10/(10+20) after 10 rows, 2·20/(30+20) after 30
    truth[40:45] = True
    cuts = [2 * truth[: k + 1].sum() / (k + 1 + truth.sum()) for k in range(120)]
    best = np.flatnonzero(np.isclose(cuts, max(cuts)))
    cut = best[(len(best) - 1) // 2]
    assert thresholds.fit(p[:, None], truth[:, None]) == [pytest.approx((p[cut] + p[cut + 1]) / 2)]


@pytest.mark.parametrize("positives", [0, 9, 91, 100])
def test_few_rows_keep_one_half(positives: int) -> None:
    truth = np.arange(100) < positives
    assert thresholds.fit(np.where(truth, 0.3, 0.1)[:, None], truth[:, None]) == [0.5]
    assert thresholds.fit(np.where(np.arange(100) < 10, 0.3, 0.1)[:, None], (np.arange(100) < 10)[:, None]) != [0.5]


@pytest.mark.parametrize("same", [0.0, np.nan], ids=str)
def test_where_there_is_nothing_to_cut_one_half_stays(same: float) -> None:
    truth = np.arange(40) < 20
    assert thresholds.fit(np.full((40, 1), same), truth[:, None]) == [0.5]


def test_the_task_and_what_is_served_answer_the_same() -> None:
    rng = np.random.default_rng(1)
    task = text(answer="many", data="none.csv", tokenizer="none", labels=["a", "b", "c"])
    y = (rng.random((300, 3)) < [0.2, 0.5, 0.01]).astype(np.float32)
    out = (rng.normal(0, 1, (300, 3)) + 2 * y - [2.5, 0.5, 0]).astype(np.float32)
    signature = {"outputs": [{"name": "logits", "shape": ["batch", 3]}], **task.said, **task.decision(out, y)}
    a, b, c = signature["thresholds"]
    assert a < 0.4 < c == 0.5
    assert b != 0.5
    labels, _ = Answers(signature).of({"logits": out})
    decided = task.decided(out, signature)
    said = [",".join(np.array(task.labels)[row]) for row in task.answer(decided)]
    assert labels == said
    assert task.metrics(decided, y)["macro_f1"] > task.metrics(out, y)["macro_f1"]


def test_a_release_without_thresholds_answers_at_one_half() -> None:
    answers = Answers({"outputs": [{"name": "logits", "shape": ["batch", 2]}], "labels": ["a", "b"], "answer": "many"})
    out = np.array([[0.1, -0.1], [-1, -1], [3, 2]], np.float32)
    assert answers.of({"logits": out})[0] == ["a", "", "a,b"]
    task = text(answer="many", data="none.csv", tokenizer="none", labels=["a", "b"])
    assert task.decided(out, {}) is out


def test_a_threshold_that_was_given_stands() -> None:
    task = text(answer="many", data="none.csv", tokenizer="none", labels=["a", "b"], threshold=0.8)
    assert task.decision(np.zeros((40, 2)), np.ones((40, 2))) == {"thresholds": [0.8, 0.8]}


@pytest.mark.parametrize("given", [0, 1, 2.5, "fit"])
def test_a_threshold_that_is_none_is_named(given: object) -> None:
    with pytest.raises(ParamsError, match=r"^task\.args\.threshold: .*(is expected, or|expected number \|) fitted"):
        text(answer="many", data="none.csv", tokenizer="none", labels=["a", "b"], threshold=given)
