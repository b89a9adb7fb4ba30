"""Hidden states of an encoder: what each token is to a layer of the student, as a layer of the teacher has it.

    mse       mean (W·h_s − h_t)²        W learnt along where the widths differ   (Jiao et al. 2020, arXiv:1909.10351)
    cosine    mean (1 − cos(W·h_s, h_t))                                          (Sanh et al. 2019, arXiv:1910.01108)

The mean is over real tokens: padding says nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from slimline.params import Layer
from slimline.training.losses.contract import Pairs, TokenLoss


@dataclass(frozen=True)
class HiddenStates(TokenLoss):
    """``layers``: {student's layer: teacher's layer} whose states N × length × width are compared by ``distance``."""

    layers: Annotated[dict[Layer, Layer], Field(min_length=1)]
    distance: Literal["mse", "cosine"] = "mse"

    def adapter(self, student: Tensor, teacher: Tensor) -> nn.Module:
        if student.ndim not in {2, 3} or student.shape[:-1] != teacher.shape[:-1]:
            raise ValueError(
                f"{list(student.shape[1:])} and {list(teacher.shape[1:])} a row; hidden states are one vector a row "
                "or a token, as many of them in both"
            )
        into, out = student.shape[-1], teacher.shape[-1]
        return nn.Identity() if into == out else nn.Linear(into, out, bias=False)

    def __call__(self, pairs: Pairs, real: Tensor | None = None) -> Tensor:
        first, *others = [self._mean(self._apart(s, t), real) for s, t in pairs]
        return sum(others, first)

    def _apart(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the distance of each token's two states [N × length]."""
        if self.distance == "cosine":
            return 1 - F.cosine_similarity(student, teacher, dim=-1)
        return (student - teacher).square().mean(-1)

    @staticmethod
    def _mean(apart: Tensor, real: Tensor | None) -> Tensor:
        if real is None or real.shape != apart.shape:  # one state a row is padded nowhere
            return apart.mean()
        return (apart * real).sum() / real.sum().clamp(min=1)
