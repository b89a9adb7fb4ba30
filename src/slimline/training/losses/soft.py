"""Soft targets: the teacher's probabilities, softened by a temperature T (Hinton, Vinyals & Dean 2015,
arXiv:1503.02531).

    soft          T² · KL(softmax(z_t / T) ‖ softmax(z_s / T))
    soft-targets  (1 − α) · CE(y, softmax(z_s)) + α · T² · KL(softmax(z_t / T) ‖ softmax(z_s / T))

T² keeps the soft part's gradients of one size whatever T is. Where any of several labels may hold, each has a
probability σ(z / T) of its own, and the divergences of all labels are summed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from slimline.errors import ParamsError
from slimline.task import Task


@dataclass(frozen=True)
class Soft:
    """The soft part alone, to be weighed against others."""

    needs: ClassVar[tuple[str, ...]] = ("teacher",)
    temperature: Annotated[float, Field(gt=0)] = 4.0

    def __call__(self, task: Task, student: Tensor, y: Tensor | None, teacher: Tensor) -> Tensor:
        del y
        return (
            self.temperature
            * self.temperature
            * divergence(student, teacher, self.temperature, independent=task.independent)
        )

    def check(self, task: Task, where: str) -> None:
        check_probabilities(task, where)


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
        return (1 - self.alpha) * hard + self.alpha * t * t * divergence(
            student, teacher, t, independent=task.independent
        )

    def check(self, task: Task, where: str) -> None:
        check_probabilities(task, where)


def check_probabilities(task: Task, where: str) -> None:
    """Raise ParamsError, ``where`` first, for a task whose output is one number: its softmax is always 1."""
    shape = task.signature()["outputs"][0]["shape"]
    if len(shape) == 2 and shape[-1] == 1:
        raise ParamsError(
            f"{where}: soft targets are probabilities of labels, and the model gives one number; take "
            "{name: hard}, and losses on layers beside it"
        )


def divergence(student: Tensor, teacher: Tensor, temperature: float, *, independent: bool = False) -> Tensor:
    """Return KL(teacher ‖ student) at a temperature, the mean over rows (and positions, where outputs have them).

    With ``independent`` labels it is the sum over them of KL between their two-valued probabilities.
    """
    if independent:
        p = torch.sigmoid(teacher / temperature)
        cross = F.binary_cross_entropy_with_logits(student / temperature, p, reduction="sum")
        own = F.binary_cross_entropy_with_logits(teacher / temperature, p, reduction="sum")
        return (cross - own) / (student.numel() // student.shape[-1])
    log_s = F.log_softmax(student / temperature, dim=-1).flatten(0, -2)
    log_t = F.log_softmax(teacher / temperature, dim=-1).flatten(0, -2)
    return F.kl_div(log_s, log_t, reduction="batchmean", log_target=True)
