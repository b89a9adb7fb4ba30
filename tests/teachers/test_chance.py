"""A teacher that knows nothing of its task, whatever kind of task it is, and one that knows something."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from slimline.errors import ChanceError
from slimline.task import Task
from slimline.tasks.text import text
from slimline.teachers import chance, label_order

LABELS = ["fine", "fraud", "late"]


def of(out: NDArray[Any], y: NDArray[Any], answer: str = "one") -> ChanceError | None:
    extra: dict[str, Any] = {"tolerance": 1.0} if answer == "number" else {"labels": LABELS}
    task: Task = text(answer=answer, data="none.csv", tokenizer="none", **extra)
    return chance.of(task, out, y, "exports/teacher", "test")


def one_label(rows: int, shares: list[float], noise: float) -> tuple[NDArray[Any], NDArray[Any]]:
    rng = np.random.default_rng(0)
    y = rng.choice(3, rows, p=shares)
    return (np.eye(3)[y] + noise * rng.normal(size=(rows, 3))).astype(np.float32), y


def many_labels(noise: float) -> tuple[NDArray[Any], NDArray[Any]]:
    rng = np.random.default_rng(0)
    y = (rng.random((300, 3)) < 0.3).astype(np.float32)
    return (y + noise * rng.normal(size=y.shape)).astype(np.float32), y


def numbers(noise: float) -> tuple[NDArray[Any], NDArray[Any]]:
    rng = np.random.default_rng(0)
    y = rng.normal(300.0, 20.0, 300).astype(np.float32)
    return (y + noise * rng.normal(size=300)).astype(np.float32)[:, None], y


@pytest.mark.parametrize("answer", ["one", "many", "number"])
def test_answers_that_know_their_rows_are_better_than_guessing(answer: str) -> None:
    known = {"one": one_label(300, [0.4, 0.3, 0.3], 0.5), "many": many_labels(0.5), "number": numbers(5.0)}
    assert of(*known[answer], answer) is None


@pytest.mark.parametrize(
    ("answer", "fact"),
    [
        ("one", r"^\d\d\.\d% of 300 test answers are right, \d\d\.\d% would be by always answering '\w+'$"),
        ("many", r"^on 300 test rows the outputs tell which labels .*; shuffled rows reach 0\.\d\d\)$"),
        ("number", r"^on 300 test rows its numbers aren't surely nearer .*interval -\S+ to -\S+\)$"),
    ],
)
def test_answers_that_know_nothing_are_told_apart_from_what_may_be_wrong(answer: str, fact: str) -> None:
    out, y = {"one": one_label(300, [0.4, 0.3, 0.3], 0.5), "many": many_labels(0.5), "number": numbers(5.0)}[answer]
    found = of(np.random.default_rng(1).permutation(out), y, answer)
    assert found is not None
    assert found.what == "no better than guessing"
    assert found.margin <= 0
    assert re.search(fact, found.fact)
    assert str(found).startswith(f"exports/teacher: {found.fact}; ")


def test_the_mean_is_no_better_than_guessing() -> None:
    _, y = numbers(0.0)
    found = of(np.full((len(y), 1), y.mean()), y, "number")
    assert found is not None
    assert found.margin <= 1e-6


def test_numbers_that_are_no_numbers_have_a_margin_that_json_can_hold() -> None:
    _, y = numbers(0.0)
    found = of(np.full((len(y), 1), np.nan), y, "number")
    assert found is not None
    assert found.margin == -1


def test_a_gain_over_the_commonest_label_that_few_rows_leave_open_is_not_sure() -> None:
    y = np.repeat([0, 1, 2], [20, 10, 10])
    answers = np.where(np.arange(40) < 22, y, (y + 1) % 3)  # right in 22 rows, by chance of their order in label 0
    found = of(np.eye(3, dtype=np.float32)[answers], y)
    assert found is not None
    assert found.what == "not surely better than guessing"
    assert found.margin == pytest.approx(0.05)
    assert "(95% interval of the difference -" in found.fact


def test_a_rare_label_that_is_found_counts_though_one_answer_is_right_as_often() -> None:
    """Trained with class weights, say: of 40 rare rows it finds 30, at the price of 50 others."""
    y = np.repeat([0, 1], [960, 40])
    answers = y.copy()
    answers[:50], answers[-10:] = 1, 0
    assert np.mean(answers == y) < 0.96
    assert of(np.eye(3, dtype=np.float32)[answers], y) is None
    assert of(np.eye(3, dtype=np.float32)[1 - answers], y) is not None


def test_noise_of_unequal_labels_is_guessing() -> None:
    rng = np.random.default_rng(0)
    y = (rng.random(1000) < 0.04).astype(np.int64)
    said = [of(np.eye(3, dtype=np.float32)[rng.permutation(y)], y) for _ in range(40)]
    assert sum(each is None for each in said) <= 2


def test_a_task_that_names_no_labels_is_not_judged() -> None:
    label_order.check(np.arange(60) % 3, np.arange(60) % 3, (), "exports/teacher")


def test_rows_of_one_label_and_few_rows_prove_nothing() -> None:
    assert of(np.eye(3, dtype=np.float32)[np.ones(50, np.int64)], np.zeros(50, np.int64)) is None
    few = label_order.ROWS - 1
    assert of(np.eye(3, dtype=np.float32)[np.ones(few, np.int64)], np.arange(few) % 3) is None
