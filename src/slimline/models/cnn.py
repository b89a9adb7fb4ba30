"""A small plain convolutional network, for small images and quick chains."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn


class Cnn(nn.Sequential):
    """Three 3×3 convolutions with BatchNorm (the second with stride 2), average pooling and a linear layer.

    Takes images N × ``channels`` × H × W, gives logits N × ``classes``; about 8k parameters at ``width`` 16.
    """

    def __init__(self, width: int = 16, classes: int = 10, channels: int = 1) -> None:
        layers: list[nn.Module] = []
        before = channels
        for after, stride in ((width, 1), (width * 2, 2), (width, 1)):
            layers += [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
            before = after
        super().__init__(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(before * 4, classes))

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (the name that nn.Sequential gives it)
        return cast(Tensor, super().forward(input))  # type: ignore[no-untyped-call]
