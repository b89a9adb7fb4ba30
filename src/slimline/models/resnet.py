"""Residual networks for small images (He et al. 2016, arXiv:1512.03385), without the first pooling layer."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from slimline.layers import Add

BLOCKS = {8: (1, 1, 1), 10: (1, 1, 1, 1), 14: (2, 2, 2), 18: (2, 2, 2, 2), 20: (3, 3, 3), 34: (3, 4, 6, 3)}


class Block(nn.Module):
    """Two 3×3 convolutions and the residual sum; a strided or widening block projects its shortcut by a 1×1."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
        self.add = Add()
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return cast(Tensor, self.relu2(self.add(y, self.shortcut(x))))


class ResNet(nn.Module):
    """ResNet of ``depth`` 8, 10, 14, 18, 20 or 34; stage k has ``width``·2^k channels.

    Takes images N × ``channels`` × H × W, gives logits N × ``classes``.
    """

    def __init__(
        self, depth: int = 18, width: int = 32, stem_stride: int = 2, classes: int = 10, channels: int = 1
    ) -> None:
        super().__init__()
        if depth not in BLOCKS:
            raise ValueError(f"depth: {depth} is not one of {', '.join(map(str, BLOCKS))}")
        self.conv = nn.Conv2d(channels, width, 3, stem_stride, 1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        stages: list[nn.Module] = []
        before = width
        for index, blocks in enumerate(BLOCKS[depth]):
            after = width * 2**index
            strides = [1 if index == 0 else 2] + [1] * (blocks - 1)
            stages.append(nn.Sequential(*(Block(before if i == 0 else after, after, s) for i, s in enumerate(strides))))
            before = after
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(before, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.stages(self.relu(self.bn(self.conv(x))))
        return cast(Tensor, self.fc(self.flatten(self.pool(x))))
