"""A multilayer perceptron."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

from torch import Tensor, nn


class Mlp(nn.Sequential):
    """Linear layers with a ReLU between them: N × ``features`` to ``hidden`` neurons a layer, to N × ``classes``."""

    def __init__(self, features: int = 13, hidden: Sequence[int] = (64, 64), classes: int = 3) -> None:
        layers: list[nn.Module] = []
        for into, out in pairwise([features, *hidden, classes]):
            layers += [nn.Linear(into, out), nn.ReLU()]
        super().__init__(*layers[:-1])

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (the name that nn.Sequential gives it)
        return cast(Tensor, super().forward(input))
