"""Soft targets: the teacher's probabilities, softened by a temperature T (Hinton, Vinyals & Dean 2015,
arXiv:1503.02531).

    soft          T² · KL(softmax(z_t / T) ‖ softmax(z_s / T))
    soft-targets  (1 − α) · CE(y, softmax(z_s)) + α · T² · KL(softmax(z_t / T) ‖ softmax(z_s / T))

T² keeps the soft part's gradients of one size whatever T is. Where any of several labels may hold, each has a
probability σ(z / T) of its own, and the divergences of all labels are summed. A number z is the mean of a normal
distribution, of variance ½: KL is (z_t / T − z_s / T)², and T² · KL the squared error to the teacher's number.
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
        return self.temperature * self.temperature * divergence(task, student, teacher, self.temperature)

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
        return (1 - self.alpha) * hard + self.alpha * t * t * divergence(task, student, teacher, t)

    def check(self, task: Task, where: str) -> None:
        check_probabilities(task, where)


def check_probabilities(task: Task, where: str) -> None:
    """Raise ParamsError, ``where`` first, for one output that is said to be neither a number nor a label of its own:
    its softmax is always 1.
    """
    shape = task.signature()["outputs"][0]["shape"]
    if len(shape) == 2 and shape[-1] == 1 and not (task.numeric or task.independent):
        raise ParamsError(
            f"{where}: the model gives one output, which a softmax makes 1 whatever it is; set numeric = True in "
            f"{type(task).__name__} where it is a number, independent = True where it is a label that holds or not, "
            "or take {name: hard}"
        )


def divergence(task: Task, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return KL(teacher ‖ student) at a temperature, the mean over rows (and positions, where outputs have them).

    With ``independent`` labels it is the sum over them of KL between their two-valued probabilities, of a ``numeric``
    task KL between normal distributions of variance ½, the mean over numbers, which count in its ``unit``.
    """
    if task.numeric:
        scale = temperature * task.unit
        return F.mse_loss(student / scale, teacher / scale)
    if task.independent:
        p = torch.sigmoid(teacher / temperature)
        cross = F.binary_cross_entropy_with_logits(student / temperature, p, reduction="sum")
        own = F.binary_cross_entropy_with_logits(teacher / temperature, p, reduction="sum")
        return (cross - own) / (student.numel() // student.shape[-1])
    log_s = F.log_softmax(student / temperature, dim=-1).flatten(0, -2)
    log_t = F.log_softmax(teacher / temperature, dim=-1).flatten(0, -2)
    return F.kl_div(log_s, log_t, reduction="batchmean", log_target=True)
