from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Literal, cast

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from slimline.errors import MethodError
from slimline.layers import macs
from slimline.method import Batches, Context, compress
from slimline.methods.linear import Linear
from slimline.methods.structured import Structured
from slimline.models.cnn import Cnn
from slimline.models.resnet import ResNet
from slimline.pruning import importances
from slimline.pruning.channels import Cost, groups
from slimline.pruning.importances import Importance
from slimline.pruning.widths import Limits
from slimline.quantization.quantizers import quantizers

Made = Callable[..., Context]
IMPORTANCES: list[Importance] = ["l1", "l2", "taylor"]
ALL: list[Importance] = [*IMPORTANCES, "fisher", "hessian", "bn-scale"]


def widths(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Return (inputs, outputs) of every convolution and linear layer."""
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)}
    return {name: (layer.weight.shape[1], layer.weight.shape[0]) for name, layer in layers.items()}


def chain(first: int, second: int, seed: int) -> nn.Sequential:
    """Return two convolutions of these widths and a linear layer, for the digits."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, first, 3), nn.ReLU(), nn.Conv2d(first, second, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(second, 10),
    ).eval()  # fmt: skip


WIDTHS = st.integers(2, 20)


@settings(max_examples=20)
@given(
    WIDTHS, WIDTHS, st.floats(0.1, 0.75), st.integers(1, 8), st.sampled_from(["global", "layer"]),
    st.sampled_from(["channels", "macs", "bytes"]), st.integers(0, 1000),
)  # fmt: skip
def test_the_best_channels_stay_in_widths_that_are_multiples(
    batches: Batches, context: Made, first: int, second: int, ratio: float, multiple: int,
    scope: Literal["global", "layer"], of: Literal["channels", "macs", "bytes"], seed: int,
) -> None:  # fmt: skip
    model = chain(first, second, seed)
    method = Structured("l2", ratio, of=of, multiple=multiple, scope=scope)
    assume(any(Limits(multiple, method.max_ratio).least(width) < width for width in (first, second)))
    kept = method.plan(model, batches, context()).edit.data["kept"]
    found = groups(copy.deepcopy(model), next(iter(batches()))[0], 10)
    for group, score in zip(found, importances.scores("l2", found, model, batches, context()), strict=True):
        layer, side, _ = group.members[0]
        stays = kept.get(layer, {}).get(side, list(range(group.channels)))
        gone = [channel for channel in range(group.channels) if channel not in stays]
        assert len(stays) % multiple == 0 or not gone
        assert len(stays) >= Limits(multiple, method.max_ratio).least(group.channels)
        assert not gone or score[stays].min() >= score[gone].max()


@settings(max_examples=20)
@given(WIDTHS, WIDTHS, st.integers(0, 1000), st.data())
def test_channels_of_exact_zeros_go_first_and_no_output_changes(
    batches: Batches, context: Made, images: Tensor, first: int, second: int, seed: int, data: st.DataObject
) -> None:
    model = chain(first, second, seed)
    dead = {
        name: data.draw(st.lists(st.integers(0, width - 1), max_size=width - 1, unique=True))
        for name, width in (("0", first), ("2", second))
    }
    mute(model, dead)
    with torch.no_grad():
        for name, reader in (("0", "2"), ("2", "6")):
            model.get_parameter(f"{reader}.weight")[:, dead[name]] = 0
    count = sum(map(len, dead.values()))
    method = Structured("l1", (count + 0.5) / (first + second), multiple=1, max_ratio=0.99)
    pruned, plan = compress(method, model, batches, context())
    for name, width in (("0", first), ("2", second)):
        assert plan.edit.data["kept"][name]["out"] == [each for each in range(width) if each not in dead[name]]
    torch.testing.assert_close(pruned(images), model(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("importance", IMPORTANCES)
@pytest.mark.parametrize("multiple", [1, 2, 4])
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_kept_widths_are_multiples(
    cnn: Cnn, batches: Batches, context: Made, images: Tensor, importance: Importance, multiple: int, scope: Any
) -> None:
    method = Structured(importance, ratio=0.4, multiple=multiple, scope=scope)
    pruned, plan = compress(method, cnn, batches, context())
    kept = [widths(pruned)[name][1] for name in ("0", "3", "6")]
    assert all(width % multiple == 0 for width in kept)
    assert sum(kept) < 8 + 16 + 8
    assert pruned(images).shape == (40, 10)
    assert {note.split(":")[0] for note in plan.notes[:-1]} == {"0", "3", "6"}
    assert plan.notes[-1] == f"{1 - sum(kept) / 32:.1%} of the channels are gone where 40.0% was asked"


@pytest.mark.parametrize("ratio", [0.25, 0.5])
def test_layer_scope_takes_the_same_share_of_each_group(
    cnn: Cnn, batches: Batches, context: Made, ratio: float
) -> None:
    pruned, _ = compress(Structured("l1", ratio=ratio, multiple=1, scope="layer"), cnn, batches, context())
    kept = [widths(pruned)[name][1] for name in ("0", "3", "6")]
    assert kept == [8 * (1 - ratio), 16 * (1 - ratio), 8 * (1 - ratio)]


def test_no_group_loses_more_than_max_ratio(cnn: Cnn, batches: Batches, context: Made) -> None:
    with torch.no_grad():
        cnn.get_parameter("3.weight").mul_(1e-3)  # by taylor, all of this layer looks useless
    method = Structured("taylor", ratio=0.45, multiple=1, max_ratio=0.5)
    pruned, _ = compress(method, cnn, batches, context())
    assert widths(pruned)["3"][1] >= 8


@pytest.mark.parametrize(
    ("of", "holds"), [("macs", "conv at 4 of 8 channels"), ("bytes", "stages.2.0.conv1 at 16 of 32 channels")]
)
def test_a_share_that_cant_be_reached_is_told_with_what_holds_it(
    resnet: ResNet, batches: Batches, context: Made, of: Any, holds: str
) -> None:
    """It broke off without a word."""
    pruned, plan = compress(Structured("l1", 0.9, of=of, multiple=1, max_ratio=0.5), resnet, batches, context())
    index = ["macs", "bytes"].index(of)
    gone = 1 - costs(pruned)[index] / costs(resnet)[index]
    assert gone < 0.9
    assert plan.notes[-1] == (
        f"{gone:.1%} of the {of} are gone where 90.0% was asked: no more can go with max_ratio 0.5 and multiple 1; "
        f"most is held by {holds}"
    )


def test_a_share_that_is_reached_is_told(resnet: ResNet, batches: Batches, context: Made) -> None:
    pruned, plan = compress(Structured("l1", 0.5, of="macs", multiple=1), resnet, batches, context())
    gone = 1 - costs(pruned)[0] / costs(resnet)[0]
    assert plan.notes[-1] == f"{gone:.1%} of the macs are gone where 50.0% was asked"


@pytest.mark.parametrize("of", ["channels", "macs", "bytes", "latency"])
def test_widths_that_leave_nothing_to_prune_are_an_error(cnn: Cnn, batches: Batches, context: Made, of: Any) -> None:
    with pytest.raises(MethodError, match=r"here\.multiple: nothing can be pruned: .*; the widest has 16"):
        Structured(of=of, multiple=512).plan(cnn, batches, context())


def test_layers_stay_connected(cnn: Cnn, batches: Batches, context: Made) -> None:
    pruned, _ = compress(Structured("l1", ratio=0.5, multiple=1, scope="layer"), cnn, batches, context())
    assert widths(pruned) == {"0": (1, 4), "3": (4, 8), "6": (8, 4), "11": (4 * 4, 10)}


def test_the_layer_that_answers_keeps_its_outputs(resnet: ResNet, batches: Batches, context: Made) -> None:
    pruned, plan = compress(Structured("l1", ratio=0.5, multiple=2), resnet, batches, context())
    assert pruned.get_parameter("fc.weight").shape[0] == 10
    assert "out" not in plan.edit.data["kept"]["fc"]


def test_both_sides_of_a_residual_sum_keep_the_same_channels(resnet: ResNet, batches: Batches, context: Made) -> None:
    _, plan = compress(Structured("l2", ratio=0.5, multiple=2), resnet, batches, context())
    kept = plan.edit.data["kept"]
    assert kept["conv"]["out"] == kept["stages.0.0.conv2"]["out"] == kept["stages.1.0.conv1"]["in"]
    assert kept["stages.1.0.conv2"]["out"] == kept["stages.1.0.shortcut.0"]["out"] == kept["stages.2.0.conv1"]["in"]
    assert kept["stages.2.0.conv2"]["out"] == kept["stages.2.0.shortcut.0"]["out"] == kept["fc"]["in"]
    assert "out" in kept["stages.0.0.bn1"] or "in" in kept["stages.0.0.bn1"]


def test_the_share_of_macs_and_of_bytes_goes(resnet: ResNet, batches: Batches, context: Made) -> None:
    whole = costs(resnet)
    for of, index in (("macs", 0), ("bytes", 1)):
        method = Structured("taylor", ratio=0.5, of=cast(Any, of), multiple=1, max_ratio=0.9)
        pruned, _ = compress(method, resnet, batches, context())
        assert 0.44 < costs(pruned)[index] / whole[index] <= 0.5


def test_pruning_by_macs_spares_more_weights_than_pruning_by_bytes(
    resnet: ResNet, batches: Batches, context: Made
) -> None:
    by_macs, _ = compress(Structured("taylor", ratio=0.5, of="macs", multiple=1), resnet, batches, context())
    by_bytes, _ = compress(Structured("taylor", ratio=0.5, of="bytes", multiple=1), resnet, batches, context())
    assert costs(by_macs)[0] < costs(by_bytes)[0]
    assert costs(by_macs)[1] > costs(by_bytes)[1]


@pytest.mark.parametrize("of", ["macs", "bytes"])
def test_the_cost_at_given_widths_is_what_the_sliced_model_costs(
    resnet: ResNet, batches: Batches, context: Made, of: str
) -> None:
    inputs, _ = next(iter(batches()))
    found = groups(resnet, inputs, 10)
    full = macs(resnet, lambda: resnet(inputs["image"][:1])) if of == "macs" else sizes(resnet)
    cost = Cost(found, resnet, {name: float(value) for name, value in full.items()})
    pruned, plan = compress(Structured("l2", ratio=0.4, multiple=1), resnet, batches, context())
    kept = plan.edit.data["kept"]
    widths = [len(kept[group.members[0][0]][group.members[0][1]]) for group in found]
    assert cost.total(widths) == pytest.approx(costs(pruned)[0 if of == "macs" else 1])


def costs(model: nn.Module) -> tuple[int, int]:
    """Return the multiply-adds of an 8×8 image and the weights of all convolutions and linear layers."""
    return sum(macs(model, lambda: model(torch.zeros(1, 1, 8, 8))).values()), sum(sizes(model).values())


def sizes(model: nn.Module) -> dict[str, int]:
    """Return how many weights each convolution and linear layer has."""
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)}
    return {name: layer.weight.numel() for name, layer in layers.items()}


@torch.no_grad()
def mute(model: nn.Module, group: dict[str, list[int]]) -> None:
    """Zero channels of convolutions, and scale and shift of the norms beside them."""
    for name, channels in group.items():
        layer = model.get_submodule(name)
        assert isinstance(layer.weight, Tensor)
        layer.weight[channels] = 0
        if isinstance(layer.bias, Tensor):
            layer.bias[channels] = 0


@pytest.mark.parametrize("importance", ALL)
def test_pruning_channels_that_are_zero_changes_nothing(
    cnn: Cnn, batches: Batches, context: Made, images: Tensor, importance: Importance
) -> None:
    dead = [1, 4, 6, 7]
    mute(cnn, {"6": dead, "7": dead})
    with torch.no_grad():
        for channel in dead:
            cnn.get_parameter("11.weight")[:, 4 * channel : 4 * channel + 4] = 0
    expected = cnn(images)
    pruned, plan = compress(Structured(importance, ratio=0.125, multiple=1), cnn, batches, context())
    assert plan.edit.data["kept"]["6"]["out"] == [0, 2, 3, 5]
    torch.testing.assert_close(pruned(images), expected, rtol=1e-4, atol=1e-5)


def test_a_pruned_residual_net_is_its_masked_original(
    resnet: ResNet, batches: Batches, context: Made, images: Tensor
) -> None:
    """Zeroed instead of removed, the channels give the same outputs, sums and norms included."""
    pruned, plan = compress(Structured("l1", ratio=0.4, multiple=2), resnet, batches, context())
    masked = copy.deepcopy(resnet)
    for name, sides in plan.edit.data["kept"].items():
        layer = masked.get_submodule(name)
        side = sides.get("out", sides.get("in") if isinstance(layer, nn.BatchNorm2d) else None)
        if side is not None:
            assert isinstance(layer.weight, Tensor)
            mute(masked, {name: [c for c in range(layer.weight.shape[0]) if c not in side]})
    torch.testing.assert_close(pruned(images), masked(images), rtol=1e-4, atol=1e-4)
    assert sum(p.numel() for p in pruned.parameters()) < sum(p.numel() for p in resnet.parameters())


@pytest.mark.parametrize("importance", IMPORTANCES)
def test_a_quantized_model_can_be_pruned_and_stays_quantized(
    resnet: ResNet, batches: Batches, context: Made, images: Tensor, importance: Importance
) -> None:
    quantized, _ = compress(Linear(), resnet, batches, context())
    pruned, plan = compress(Structured(importance, ratio=0.3, multiple=2), quantized, batches, context())
    for name, (_, out) in widths(pruned).items():
        assert len(quantizers(pruned)[f"{name}.weight_quantizer"].scale) == out
        kept = plan.edit.data["kept"].get(name, {}).get("out")
        before = quantizers(quantized)[f"{name}.weight_quantizer"].scale
        if kept:
            assert torch.equal(quantizers(pruned)[f"{name}.weight_quantizer"].scale, before[kept])
    assert pruned(images).shape == (40, 10)


def test_planning_is_repeatable_and_leaves_the_model_as_it_was(cnn: Cnn, batches: Batches, context: Made) -> None:
    before = copy.deepcopy(cnn.state_dict())
    method = Structured("taylor", ratio=0.4, multiple=1)
    first, second = method.plan(cnn, batches, context()), method.plan(cnn, batches, context())
    assert first.edit == second.edit
    assert all(torch.equal(tensor, before[name]) for name, tensor in cnn.state_dict().items())
    assert all(parameter.grad is None for parameter in cnn.parameters())


def test_depthwise_convolutions_follow_their_input(batches: Batches, context: Made, images: Tensor) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 4, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10),
    ).eval()  # fmt: skip
    pruned, plan = compress(Structured("l1", ratio=0.5, multiple=1, scope="layer"), model, batches, context())
    middle = pruned.get_submodule("1")
    assert isinstance(middle, nn.Conv2d)
    assert middle.groups == middle.in_channels == middle.out_channels == 4
    kept = plan.edit.data["kept"]
    assert kept["0"]["out"] == kept["2"]["in"]
    assert pruned(images).shape == (40, 10)


class Untraceable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        raise ValueError("not today")


def test_a_model_that_cannot_be_traced_is_an_error(batches: Batches, context: Made) -> None:
    with pytest.raises(MethodError, match="structured: the dependency graph can't be traced"):
        Structured().plan(Untraceable(), batches, context())


def test_a_model_without_a_hidden_layer_has_nothing_to_prune(batches: Batches, context: Made) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(MethodError, match="here: structured found no channels that can be pruned"):
        Structured("l1").plan(model, batches, context())
