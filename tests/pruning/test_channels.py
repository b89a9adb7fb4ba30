"""Which channels can go: what pretrained networks have between their convolutions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from slimline.errors import MethodError
from slimline.method import Batches, compress
from slimline.methods.structured import Structured
from slimline.pruning.channels import groups, keep_channels, slice_model

ROWS = {"image": torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))}


class Gate(nn.Module):
    """Squeeze-and-excitation (Hu et al. 2018, arXiv:1709.01507)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(channels, channels // 2, 1), nn.Conv2d(channels // 2, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.up(torch.relu(self.down(x.mean((2, 3), keepdim=True)))))


class ChannelNorm(nn.LayerNorm):
    """A LayerNorm over the channels of images."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Scaled(nn.Module):
    """A residual block with a layer scale, as ConvNeXt has it (Liu et al. 2022, arXiv:2201.03545)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.norm = ChannelNorm(channels)
        self.wide, self.narrow = nn.Conv2d(channels, 4 * channels, 1), nn.Conv2d(4 * channels, channels, 1)
        self.gamma = nn.Parameter(torch.full((channels, 1, 1), 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        y = self.narrow(nn.functional.gelu(self.wide(self.norm(self.depthwise(x)))))
        return x + self.gamma * y


class Heads(nn.Module):
    """Attention over pixels whose queries, keys and values come out of one layer."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        rows, channels, height, width = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        q, k, v = self.qkv(tokens).reshape(rows, -1, 3, self.heads, channels // self.heads).permute(2, 0, 3, 1, 4)
        mixed = (q @ k.transpose(-2, -1)).softmax(-1) @ v
        out = self.proj(mixed.transpose(1, 2).reshape(rows, -1, channels))
        return x + out.transpose(1, 2).reshape(rows, channels, height, width)


def network(*middle: nn.Module, channels: int = 16) -> nn.Sequential:
    torch.manual_seed(0)
    tail = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))
    return nn.Sequential(nn.Conv2d(1, channels, 3, padding=1), nn.Hardswish(), *middle, *tail).eval()


def roots(model: nn.Module) -> list[str]:
    return [group.members[0][0] for group in groups(model, ROWS, 10)]


def test_channels_under_a_gate_go_with_it() -> None:
    model = network(Gate(16), nn.Conv2d(16, 16, 1))
    found = groups(model, ROWS, 10)
    layers = [{(layer, side) for layer, side, _ in group.members} for group in found]
    assert {("0", "out"), ("2.down", "in"), ("2.up", "out"), ("3", "in")} in layers
    assert {("2.down", "out"), ("2.up", "in")} in layers
    scores = [torch.arange(group.channels, dtype=torch.float64) for group in found]
    smaller = slice_model(model, keep_channels(found, scores, [group.channels // 2 for group in found]))
    assert smaller(ROWS["image"]).shape == (4, 10)


@pytest.mark.parametrize(
    ("middle", "left"),
    [
        (Scaled(16), ["2.wide"]),
        (ChannelNorm(16), []),
        (nn.GroupNorm(4, 16), []),
        (nn.Conv2d(16, 16, 3, padding=1, groups=4), []),
        (nn.Sequential(nn.Conv2d(16, 16, 1), nn.Conv2d(16, 16, 3, groups=4), nn.Conv2d(16, 16, 1)), ["0", "2.2"]),
        (Heads(16, 4), []),
    ],
    ids=["layer scale", "norm over channels", "group norm", "grouped", "between", "heads"],
)
def test_channels_that_cannot_be_sliced_stay(middle: nn.Module, left: list[str]) -> None:
    assert sorted(roots(network(middle))) == left


@pytest.mark.parametrize("importance", ["l2", "taylor"])
def test_structured_takes_what_is_left(importance: Any, batches: Batches, context: Any, images: Tensor) -> None:
    model = network(Scaled(16), Gate(16))
    pruned, plan = compress(Structured(importance, 0.5, multiple=4), model, batches, context())
    assert plan.edit.data["kept"].keys() == {"2.wide", "2.narrow", "3.down", "3.up"}
    assert pruned.get_submodule("0").out_channels == 16
    assert pruned(images).shape == (40, 10)


def test_where_nothing_is_left_it_says_so(batches: Batches, context: Any) -> None:
    with pytest.raises(MethodError, match="structured found no channels that can be pruned"):
        Structured("l2", 0.5).plan(network(ChannelNorm(16)), batches, context())


class Half(nn.Module):
    """A network of bfloat16 weights that takes images of any type, and runs in no other."""

    def __init__(self) -> None:
        super().__init__()
        self.body = network(nn.Conv2d(16, 16, 1)).bfloat16()

    def forward(self, image: Tensor) -> Tensor:
        return self.body(image.bfloat16())  # type: ignore[no-any-return]


def test_channels_that_cannot_be_checked_are_refused() -> None:
    with pytest.raises(MethodError, match="here: slicing can't be checked: the model runs in neither float64 nor floa"):
        groups(Half(), ROWS, 10, where="here: ")
