"""Hints (FitNets, Romero et al. 2015, arXiv:1412.6550): a layer of the student guesses a layer of the teacher.

    L = ½ · mean (u_t − r(u_s))²

r is a regressor that is learnt along, since the two layers differ in width: a 1×1 convolution for maps N×C×H×W, else a
linear layer over the last axis. The paper sums where this takes the mean, so that ``weight`` doesn't hang on the
layer's size, and it trains on the hint first, where this adds it to the other losses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from slimline.params import Layer
from slimline.training.losses.contract import FeatureLoss, Pairs


@dataclass(frozen=True)
class Hint(FeatureLoss):
    """``layers``: {guided layer of the student: hint layer of the teacher}; several pairs are summed."""

    layers: Annotated[dict[Layer, Layer], Field(min_length=1)]

    def adapter(self, student: Tensor, teacher: Tensor) -> nn.Module:
        maps = student.ndim == 4
        channels = 1 if maps else -1
        rest = [list(each.shape[2:] if maps else each.shape[1:-1]) for each in (student, teacher)]
        if student.ndim != teacher.ndim or student.ndim < 2 or rest[0] != rest[1]:
            raise ValueError(
                f"{list(student.shape[1:])} and {list(teacher.shape[1:])} a row; the regressor changes channels only"
            )
        into, out = student.shape[channels], teacher.shape[channels]
        return nn.Conv2d(into, out, 1) if maps else nn.Linear(into, out)

    def __call__(self, pairs: Pairs) -> Tensor:
        first, *others = [F.mse_loss(guess, hint) / 2 for guess, hint in pairs]
        return sum(others, first)
