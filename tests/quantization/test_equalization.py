from __future__ import annotations

import copy
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from slimline.layers import Add
from slimline.models.resnet import ResNet
from slimline.quantization.equalization import Pair, equalize, find_pairs
from slimline.quantization.grids import Spec
from slimline.quantization.quantizers import weight_quantizer


class Mixed(nn.Module):
    """A dense, a depthwise and a grouped convolution and two linear layers, joined by all that may stand between."""

    def __init__(self) -> None:
        super().__init__()
        self.dense, self.inplace, self.depthwise = (
            nn.Conv2d(3, 8, 3),
            nn.ReLU(inplace=True),
            nn.Conv2d(8, 8, 3, groups=8),
        )
        self.pool, self.grouped = nn.MaxPool2d(2), nn.Conv2d(8, 12, 1, groups=2, bias=False)
        self.hidden, self.last = nn.Linear(12 * 4, 7), nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.pool(torch.relu(self.depthwise(self.inplace(self.dense(x)))))
        y = F.adaptive_avg_pool2d(self.grouped(y).relu(), 2)
        out: Tensor = self.last(F.relu(self.hidden(y.view(y.size(0), -1))))
        return out


MIXED = ["dense", "depthwise", "grouped", "hidden", "last"]


def skewed(model: nn.Module, factors: list[float]) -> nn.Module:
    """Multiply the output channels of each layer by factors that go round."""
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                for channel in range(len(layer.weight)):
                    layer.weight[channel] *= factors[channel % len(factors)]
    return model.eval()


def test_pairs_are_seen_through_relu_pooling_and_flattening() -> None:
    pairs, notes = find_pairs(Mixed(), {"x": torch.rand(2, 3, 12, 12)})
    assert pairs == [Pair(first, second) for first, second in pairwise(MIXED)]
    assert notes == []


@settings(max_examples=20)
@given(st.lists(st.floats(-3, 3), min_size=1, max_size=5), st.integers(0, 99))
def test_the_function_stays_whatever_the_ranges(exponents: list[float], seed: int) -> None:
    torch.manual_seed(seed)
    model = skewed(Mixed(), [10**each for each in exponents])
    x = torch.randn(4, 3, 12, 12)
    expected, before = model(x), copy.deepcopy(model.state_dict())
    equalize(model, {"x": x}, MIXED)
    assert any(not torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    torch.testing.assert_close(model(x), expected, rtol=1e-3, atol=1e-4 * float(expected.detach().abs().max()))


def test_both_ranges_of_every_channel_come_out_alike() -> None:
    model = skewed(Mixed(), [100.0, 1.0, 0.01])
    equalize(model, {"x": torch.rand(2, 3, 12, 12)}, MIXED)
    made = model.dense.weight.abs().flatten(1).amax(1)  # type: ignore[union-attr]
    read = model.depthwise.weight.abs().flatten(1).amax(1)  # type: ignore[union-attr]
    torch.testing.assert_close(made, read, rtol=0.01, atol=0)


@pytest.mark.parametrize("bits", [4, 8])
def test_one_grid_for_the_tensor_loses_less(bits: int) -> None:
    """The paper's figure: channels of very different ranges under one scale."""
    x = torch.rand(64, 3, 12, 12)
    model = skewed(Mixed(), [30.0, 1.0, 0.05])
    expected = model(x)
    errors = []
    for equal in (False, True):
        trial = copy.deepcopy(model)
        if equal:
            equalize(trial, {"x": x}, MIXED)
        with torch.no_grad():
            for name in MIXED:
                weight = trial.get_submodule(name).get_parameter("weight")
                quantizer = weight_quantizer(Spec(bits, "symmetric"), weight)
                quantizer.fit(weight)
                weight.copy_(quantizer(weight))
        errors.append(float((trial(x) - expected).detach().square().mean()))
    assert errors[1] < 0.5 * errors[0]


def test_a_channel_that_nothing_reads_is_left_alone() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    with torch.no_grad():
        model[0].weight[1] = 0
        model[2].weight[:, 2] = 0
    x = torch.randn(8, 3)
    expected = model(x)
    equalize(model, {"x": x}, ["0", "2"])
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    torch.testing.assert_close(model(x), expected)


class Branches(nn.Module):
    """Layers that must not be equalized: read twice, read by a sum, read by the output, run twice, on another axis."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.one, self.two, self.add = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1), Add()
        self.shared, self.across = nn.Conv2d(2, 2, 1), nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.twice(x))
        y = self.add(self.one(y), self.two(y))
        y = torch.relu(self.shared(torch.relu(self.shared(y))))
        return torch.sigmoid(self.across(y))


def test_what_is_read_elsewhere_is_no_pair() -> None:
    assert find_pairs(Branches(), {"x": torch.rand(2, 2, 5, 5)}) == ([], [])


@pytest.mark.parametrize("between", [nn.ReLU6(), nn.Hardtanh()], ids=["relu6", "hardtanh"])
def test_a_clipped_activation_is_left_with_a_note(between: nn.Module) -> None:
    model = nn.Sequential(nn.Linear(3, 4), between, nn.Linear(4, 2))
    before = copy.deepcopy(model.state_dict())
    notes = equalize(model, {"x": torch.rand(2, 3)}, ["0", "2"])
    assert notes == [
        "0 pairs of layers equalized", "0 and 2 are not equalized: between them activations are clipped (ReLU6)",
    ]  # fmt: skip
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    "between", [nn.Sigmoid(), nn.BatchNorm1d(4), nn.Softmax(1)], ids=["sigmoid", "norm", "softmax"]
)
def test_what_scales_otherwise_parts_a_pair(between: nn.Module) -> None:
    model = nn.Sequential(nn.Linear(3, 4), between, nn.Linear(4, 2))
    assert find_pairs(model, {"x": torch.rand(2, 3)}) == ([], [])


def test_blocks_of_a_residual_net_hold_pairs_once_norms_are_folded(resnet: ResNet, images: Tensor) -> None:
    assert find_pairs(resnet, {"image": images})[0] == []
    for name, module in list(resnet.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            parent, _, leaf = name.rpartition(".")
            setattr(resnet.get_submodule(parent), leaf, nn.Identity())
    pairs, _ = find_pairs(resnet, {"image": images})
    assert pairs == [Pair(f"stages.{k}.0.conv1", f"stages.{k}.0.conv2") for k in range(3)]


def test_layers_that_are_not_named_stay() -> None:
    model = skewed(Mixed(), [10.0, 1.0])
    before = copy.deepcopy(model.state_dict())
    equalize(model, {"x": torch.rand(2, 3, 12, 12)}, ["hidden", "last"])
    moved = {name.partition(".")[0] for name, each in model.state_dict().items() if not torch.equal(each, before[name])}
    assert moved == {"hidden", "last"}
