"""Losses as plug-ins: frozen dataclasses called with (task, student's output, targets, teacher's output or None)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from slimline.task import Task


@dataclass(frozen=True)
class SoftTargets:
    """Distillation with soft targets (Hinton, Vinyals & Dean 2015, arXiv:1503.02531):

        L = (1 − α) · CE(y, softmax(z_s)) + α · T² · KL(softmax(z_t / T) ‖ softmax(z_s / T))

    T² keeps the soft part's gradients of one size whatever T is. Without a teacher L is the task's own loss, which
    also stands for CE in the first term. Without targets (a mixed view) the first term is left out.
    """

    temperature: Annotated[float, Field(gt=0)] = 4.0
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.9

    def __call__(self, task: Task, student: Tensor, y: Tensor | None, teacher: Tensor | None) -> Tensor:
        hard = task.loss(student, y) if y is not None else student.new_zeros(())
        if teacher is None:
            return hard
        t = self.temperature
        log_s = F.log_softmax(student / t, dim=-1).flatten(0, -2)
        log_t = F.log_softmax(teacher / t, dim=-1).flatten(0, -2)
        soft = F.kl_div(log_s, log_t, reduction="batchmean", log_target=True)
        return (1 - self.alpha) * hard + self.alpha * t * t * soft
