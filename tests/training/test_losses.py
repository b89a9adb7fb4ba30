from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from slimline.tasks.digits import Digits
from slimline.training.losses import SoftTargets


@given(temperature=st.floats(0.5, 20), alpha=st.floats(0, 1), seed=st.integers(0, 100))
def test_soft_targets_are_their_formula(temperature: float, alpha: float, seed: int) -> None:
    """L = (1 − α) · CE + α · T² · KL(teacher ‖ student), each the mean over rows."""
    generator = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(2, 4, 10, generator=generator)
    y = torch.randint(0, 10, (4,), generator=generator)
    hard = soft = 0.0
    for row in range(4):
        p_s = [math.exp(float(z)) for z in student[row]]
        hard -= math.log(p_s[int(y[row])] / sum(p_s)) / 4
        q_s = [math.exp(float(z) / temperature) for z in student[row]]
        q_t = [math.exp(float(z) / temperature) for z in teacher[row]]
        for s, t in zip(q_s, q_t, strict=True):
            soft += t / sum(q_t) * (math.log(t / sum(q_t)) - math.log(s / sum(q_s))) / 4
    expected = (1 - alpha) * hard + alpha * temperature**2 * soft
    found = SoftTargets(temperature, alpha)(Digits(), student, y, teacher)
    assert float(found) == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_without_a_teacher_it_is_the_tasks_own_loss(task: Digits) -> None:
    out, y = torch.randn(4, 10), torch.arange(4)
    assert torch.equal(SoftTargets()(task, out, y, None), task.loss(out, y))


def test_a_student_that_equals_its_teacher_has_no_soft_loss(task: Digits) -> None:
    out, y = torch.randn(4, 10), torch.arange(4)
    assert float(SoftTargets(alpha=1.0)(task, out, y, out)) == pytest.approx(0, abs=1e-5)


def test_outputs_of_more_axes_are_averaged_over_rows_and_positions() -> None:
    class PerPosition(Digits):
        def loss(self, out: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return super().loss(out.flatten(0, 1), y.flatten())

    student, teacher = torch.randn(2, 3, 5, 10)
    y = torch.zeros(3, 5, dtype=torch.int64)
    whole = SoftTargets()(PerPosition(), student, y, teacher)
    flat = SoftTargets()(Digits(), student.flatten(0, 1), y.flatten(), teacher.flatten(0, 1))
    torch.testing.assert_close(whole, flat)
