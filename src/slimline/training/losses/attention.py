"""Attention transfer (Zagoruyko & Komodakis 2017, arXiv:1612.03928): where a layer is active, not with which channel.

    Q = vec(Σ_c |A_c|^p)        L = ½ · Σ_pairs mean_rows ‖Q_s / ‖Q_s‖₂ − Q_t / ‖Q_t‖₂‖₂²

The norm is squared, as in the authors' code, so that it has a gradient where the two maps are equal.
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
class Attention(FeatureLoss):
    """``layers``: maps N×C×H×W of one height and width, whatever their channels; ``power`` is p."""

    layers: Annotated[dict[Layer, Layer], Field(min_length=1)]
    power: Annotated[float, Field(ge=1)] = 2.0

    def adapter(self, student: Tensor, teacher: Tensor) -> nn.Module:
        if student.ndim < 3 or student.shape[2:] != teacher.shape[2:]:
            raise ValueError(
                f"{list(student.shape[1:])} and {list(teacher.shape[1:])} a row; both must have one height and width"
            )
        return nn.Identity()

    def __call__(self, pairs: Pairs) -> Tensor:
        first, *others = [(self._map(s) - self._map(t)).square().sum(1).mean() / 2 for s, t in pairs]
        return sum(others, first)

    def _map(self, features: Tensor) -> Tensor:
        """Return Q / ‖Q‖₂, one row a row: [N × H·W]."""
        return F.normalize(features.abs().pow(self.power).sum(1).flatten(1), dim=1)
