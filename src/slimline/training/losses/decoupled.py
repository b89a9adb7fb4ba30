"""Decoupled distillation (Zhao et al. 2022, arXiv:2203.08679): KL in two parts with weights of their own.

    p = softmax(z / T), t the target class, b = [p_t, 1 − p_t], p̂_i = p_i / (1 − p_t) for i ≠ t
    L = T² · (α · KL(b_t ‖ b_s) + β · KL(p̂_t ‖ p̂_s))

Plain KL has α = 1 and β = 1 − p_t of the teacher, which silences what a sure teacher knows of the other classes.
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
class Decoupled:
    """``alpha`` weighs the target class against the rest, ``beta`` the rest among themselves."""

    needs: ClassVar[tuple[str, ...]] = ("labels", "teacher")
    temperature: Annotated[float, Field(gt=0)] = 4.0
    alpha: Annotated[float, Field(ge=0)] = 1.0
    beta: Annotated[float, Field(ge=0)] = 8.0

    def check(self, task: Task, where: str) -> None:
        shape, targets = task.signature()["outputs"][0]["shape"], task.splits()["train"].targets
        if len(shape) != 2 or targets.ndim != 1 or targets.dtype.kind not in "iu":
            raise ParamsError(f"{where}: this loss wants one class a row, {type(task).__name__} has something else")

    def __call__(self, task: Task, student: Tensor, y: Tensor, teacher: Tensor) -> Tensor:
        del task
        t = self.temperature
        (b_s, rest_s), (b_t, rest_t) = _split(student / t, y), _split(teacher / t, y)
        target = F.kl_div(b_s, b_t, reduction="batchmean", log_target=True)
        others = F.kl_div(rest_s, rest_t, reduction="batchmean", log_target=True)
        return t * t * (self.alpha * target + self.beta * others)


def _split(z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return log b [N × 2] and log p̂ [N × K−1]."""
    is_target = F.one_hot(y, z.shape[-1]).bool()
    log_p = F.log_softmax(z, dim=-1)
    rest = log_p[~is_target].view(len(z), -1)
    return torch.stack([log_p[is_target], rest.logsumexp(-1)], dim=-1), F.log_softmax(rest, dim=-1)
