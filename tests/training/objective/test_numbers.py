"""Losses of tasks whose answer is a number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from slimline import metrics
from slimline.params import Training
from slimline.task import Split
from slimline.tasks.labelled_images import images
from slimline.training import State, TeacherCache, Term, check_terms, fit
from slimline.training.losses import SoftTargets
from tests.training.objective.conftest import WHERE


def test_without_a_teacher_numbers_are_learnt_by_the_tasks_own_loss() -> None:
    """So is every teacher of numbers: its section names no loss."""
    task = images(answer="number", data="none", tolerance=0.1)
    terms = [Term(SoftTargets(), 1.0, "params.yaml: teacher.loss")]
    check_terms(terms, task, taught=False, mixup=0.0, where="params.yaml: teacher.training")
    out, y = torch.randn(4, 1), torch.randn(4)
    assert torch.equal(SoftTargets()(task, out, y, None), task.loss(out, y))


@pytest.mark.parametrize("mixup", [0.0, 0.5])
def test_a_student_of_numbers_comes_nearer_to_its_teacher_than_noisy_targets_bring_it(
    splits: dict[str, Split], tmp_path: Path, mixup: float
) -> None:
    task = images(answer="number", data="none", tolerance=0.1, size=[8, 8], mode="L", mirror=False, shift=0)
    teacher, untaught, learner = (nn.Sequential(nn.Flatten(), nn.Linear(64, 1)) for _ in range(3))
    learner.load_state_dict(untaught.state_dict())

    def numbered(part: Split, noise: float) -> Split:
        with torch.no_grad():
            y = teacher(torch.from_numpy(part.inputs["image"])).squeeze(-1)
        return Split(part.inputs, (y + noise * torch.randn(len(part))).numpy())

    train, validation = numbered(splits["train"].head(200), 2.0), numbered(splits["validation"].head(100), 0.0)
    cache = TeacherCache(teacher, task, train, "numbers", 3, tmp_path / "teacher")
    settings = Training(epochs=60, batch_size=64, lr=0.05, views=2)

    def trained(student: nn.Module, settings: Training, **options: Any) -> float:
        state = State({"key": str(len(options))}, tmp_path)
        terms = [Term(SoftTargets())]
        fit(student, task, train, validation, settings, loss=terms, seed=3, state=state, where=WHERE, **options)
        return metrics.evaluate(student, task, validation)["rmse"]

    alone = trained(untaught, settings)
    assert trained(learner, settings.model_copy(update={"mixup": mixup}), teacher=cache) < 0.5 * alone
