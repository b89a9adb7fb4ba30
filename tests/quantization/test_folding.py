"""Folding BatchNorm, also of a class of its own that has its activation in it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from slimline.method import Batches, compress
from slimline.methods.linear import Linear
from slimline.methods.symmetric import Symmetric
from slimline.quantization import folding


class NormAct(nn.BatchNorm2d):
    """A BatchNorm that calls its layers in order, as timm's BatchNormAct2d does."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.drop = nn.Identity()
        self.act = nn.Hardswish()

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return self.act(self.drop(super().forward(input)))  # type: ignore[no-any-return]


class Doubled(nn.BatchNorm2d):
    """A BatchNorm that does more than its layers say."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return 2 * super().forward(input)


def network(norm: Any) -> nn.Sequential:
    """Return a net whose norm is no identity."""
    torch.manual_seed(0)
    layer = norm(8)
    nn.init.uniform_(layer.weight, 0.5, 1.5)
    nn.init.uniform_(layer.bias, -1, 1)
    nn.init.uniform_(layer.running_mean, -1, 1)
    nn.init.uniform_(layer.running_var, 0.5, 2)
    conv = nn.Conv2d(1, 8, 3, bias=False)
    return nn.Sequential(conv, layer, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)).eval()


@pytest.mark.parametrize("method", [Linear(), Symmetric()], ids=["linear", "symmetric"])
def test_an_activation_inside_a_norm_outlives_the_folding(
    method: Any, batches: Batches, context: Any, images: Tensor
) -> None:
    model = network(NormAct)
    quantized, plan = compress(method, model, batches, context())
    assert plan.edit.data["fold"] == [["0", "1"]]
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in quantized.modules())
    expected = model(images)
    assert (quantized(images) - expected).abs().max() < 0.05 * expected.std()


def test_a_norm_that_does_more_stays(batches: Batches) -> None:
    model = network(Doubled)
    assert folding.batchnorm_pairs(model, next(iter(batches()))[0]) == []
