"""Objectives and short trainings between a fresh student and a teacher that has learnt its digits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from slimline.models.cnn import Cnn
from slimline.params import Training
from slimline.task import Split, tensors
from slimline.tasks.digits import Digits
from slimline.training import Epoch, Objective, State, TeacherCache, Term, fit
from slimline.training.losses.hint import Hint

FOUR = Training(epochs=4, batch_size=64, lr=0.01, weight_decay=0.01, views=2)
HINT = Hint({"5": "5"})
WHERE = "params.yaml: distill.training"
Run = Callable[..., list[Epoch]]
Taught = Callable[..., TeacherCache]


def fresh(seed: int = 5) -> Cnn:
    torch.manual_seed(seed)
    return Cnn(width=4)


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(tensor, b.state_dict()[name]) for name, tensor in a.state_dict().items())


@pytest.fixture
def taught(task: Digits, splits: dict[str, Split], cnn: Cnn, tmp_path: Path) -> Taught:
    """Return a teacher's cache on 200 rows, by default that of the trained ``cnn``."""

    def make(model: nn.Module = cnn, key: str = "key") -> TeacherCache:
        return TeacherCache(model, task, splits["train"].head(200), key, 3, tmp_path / "teacher")

    return make


@pytest.fixture
def run(task: Digits, splits: dict[str, Split], tmp_path: Path, taught: Taught) -> Run:
    """Train a model on 200 rows; keyword arguments are passed on to ``fit``."""

    def train(model: nn.Module, loss: Any, settings: Training = FOUR, *, key: str = "", **options: Any) -> list[Epoch]:
        rows, validation = splits["train"].head(200), splits["validation"].head(100)
        defaults = {"seed": 3, "state": State({"key": key}, tmp_path), "where": WHERE, "teacher": taught()}
        return fit(model, task, rows, validation, settings, loss=loss, **{**defaults, **options})

    return train


@pytest.fixture
def objective(task: Digits, splits: dict[str, Split], cnn: Cnn) -> Callable[..., Objective]:
    """Return an objective of these losses between a fresh student and the trained ``cnn``."""

    def make(*losses: Any, student: nn.Module | None = None, teacher: nn.Module = cnn) -> Objective:
        terms = [Term(loss, 1.0, f"params.yaml: distill.loss.{index}") for index, loss in enumerate(losses)]
        return Objective(terms, task, student or fresh(), teacher, splits["train"], 3)

    return make


@pytest.fixture
def batch(splits: dict[str, Split]) -> tuple[dict[str, Tensor], Tensor]:
    inputs, y = splits["train"].head(16)[slice(0, 16)]
    return tensors(inputs), torch.from_numpy(y)
