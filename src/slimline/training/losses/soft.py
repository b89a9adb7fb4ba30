"""Soft targets: the teacher's probabilities, softened by a temperature T (Hinton, Vinyals & Dean 2015,
arXiv:1503.02531).

    soft          T² · KL(softmax(z_t / T) ‖ softmax(z_s / T))
    soft-targets  (1 − α) · CE(y, softmax(z_s)) + α · T² · KL(softmax(z_t / T) ‖ softmax(z_s / T))

T² keeps the soft part's gradients of one size whatever T is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from slimline.task import Task


@dataclass(frozen=True)
class Soft:
    """The soft part alone, to be weighed against others."""

    needs: ClassVar[tuple[str, ...]] = ("teacher",)
    temperature: Annotated[float, Field(gt=0)] = 4.0

    def __call__(self, task: Task, student: Tensor, y: Tensor | None, teacher: Tensor) -> Tensor:
        del task, y
        return self.temperature * self.temperature * divergence(student, teacher, self.temperature)


@dataclass(frozen=True)
class SoftTargets:
    """Hard and soft in one. Without a teacher it is the task's own loss, which also stands for CE in the first term.
    Without targets (a mixed view) the first term is left out.
    """

    temperature: Annotated[float, Field(gt=0)] = 4.0
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.9

    def __call__(self, task: Task, student: Tensor, y: Tensor | None, teacher: Tensor | None) -> Tensor:
        hard = task.loss(student, y) if y is not None else student.new_zeros(())
        if teacher is None:
            return hard
        t = self.temperature
        return (1 - self.alpha) * hard + self.alpha * t * t * divergence(student, teacher, t)


def divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return KL(teacher ‖ student) at a temperature, the mean over rows (and positions, where outputs have them)."""
    log_s = F.log_softmax(student / temperature, dim=-1).flatten(0, -2)
    log_t = F.log_softmax(teacher / temperature, dim=-1).flatten(0, -2)
    return F.kl_div(log_s, log_t, reduction="batchmean", log_target=True)
