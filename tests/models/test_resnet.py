from __future__ import annotations

import pytest
import torch
from torch import nn

from slimline.models.resnet import BLOCKS, ResNet


@pytest.mark.parametrize("depth", BLOCKS, ids=str)
def test_depth_counts_convolutions_on_the_long_way_and_the_last_layer(depth: int) -> None:
    model = ResNet(depth=depth, width=4)
    layers = [
        name for name, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear) and "shortcut" not in name
    ]
    assert len(layers) == depth


def test_widths_double_and_sizes_halve() -> None:
    model = ResNet(depth=8, width=4, stem_stride=1, classes=7, channels=3).eval()
    assert model(torch.rand(2, 3, 16, 16)).shape == (2, 7)
    assert model.fc.in_features == 16


def test_an_unknown_depth_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="depth: 9 is not one of 8, 10, 14, 18, 20, 34"):
        ResNet(depth=9)
