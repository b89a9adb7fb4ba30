"""Relational distillation (Park et al. 2019, arXiv:1904.05068): how the rows of a batch lie to each other.

    ψ_D(i, j) = ‖e_i − e_j‖₂ / μ,  μ the mean over all i ≠ j        ψ_A(i, j, k) = cos ∠ e_i e_j e_k
    L = λ_D · mean huber(ψ_D(s), ψ_D(t)) + λ_A · mean huber(ψ_A(s), ψ_A(t))

e are outputs, or what ``layers`` give, flattened; student and teacher may differ in width. The angles take memory that
grows with the batch's third power.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from slimline.params import Layer
from slimline.training.losses.contract import FeatureLoss, Pairs


@dataclass(frozen=True)
class Relational(FeatureLoss):
    """``distance`` is λ_D, ``angle`` λ_A; without ``layers`` the outputs are compared."""

    layers: dict[Layer, Layer] = field(default_factory=dict)
    distance: Annotated[float, Field(ge=0)] = 1.0
    angle: Annotated[float, Field(ge=0)] = 2.0

    def __call__(self, pairs: Pairs) -> Tensor:
        total = pairs[0][0].new_zeros(())
        for pair in pairs:
            student, teacher = (each.flatten(1) for each in pair)
            rows = len(student)
            if self.distance:
                apart = F.smooth_l1_loss(distances(student), distances(teacher), reduction="sum")
                total = total + self.distance * apart / max(1, rows * (rows - 1))
            if self.angle:
                turned = F.smooth_l1_loss(angles(student), angles(teacher), reduction="sum")
                total = total + self.angle * turned / max(1, rows * (rows - 1) * (rows - 2))
        return total


def distances(rows: Tensor) -> Tensor:
    """Return ψ_D [N × N]; its diagonal is 0."""
    squares = (rows[:, None] - rows[None]).square().sum(-1)
    apart = squares.clamp(min=1e-12).sqrt() * (squares > 0)
    return apart / (apart.sum() / max(1, len(rows) * (len(rows) - 1))).clamp(min=1e-12)


def angles(rows: Tensor) -> Tensor:
    """Return ψ_A [N × N × N], j first: what is not an angle (two rows the same) is 0 or 1 for any model."""
    towards = F.normalize(rows[None] - rows[:, None], dim=-1)
    return torch.bmm(towards, towards.transpose(1, 2))
