from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from slimline.errors import MethodError
from slimline.method import Batches, Context, compress
from slimline.methods.linear import Linear
from slimline.methods.sparsify import Sparsify
from slimline.methods.structured import Structured
from slimline.models.cnn import Cnn
from slimline.models.resnet import ResNet
from slimline.pruning.channels import groups

Made = Callable[..., Context]


def penalty(method: Sparsify, model: nn.Module, batches: Batches, context: Made) -> tuple[nn.Module, Tensor]:
    planned, _ = compress(method, model, batches, context())
    value = method.penalty(planned)
    assert value is not None
    return planned, value


@pytest.mark.parametrize("kind", ["l1", "l2", "bn-scale"])
def test_penalties_are_their_formulas(cnn: Cnn, batches: Batches, context: Made, kind: str) -> None:
    kinds = (nn.BatchNorm2d,) if kind == "bn-scale" else (nn.Conv2d, nn.Linear)
    weights = [layer.get_parameter("weight").detach() for layer in cnn.modules() if isinstance(layer, kinds)]
    expected = sum(float((w.square() if kind == "l2" else w.abs()).sum()) for w in weights)
    _, value = penalty(Sparsify(kind, 0.01), cnn, batches, context)  # type: ignore[arg-type]
    assert float(value.detach()) == pytest.approx(0.01 * expected, rel=1e-4)


def test_group_lasso_sums_the_norms_of_channels_over_all_coupled_layers(
    resnet: ResNet, batches: Batches, context: Made
) -> None:
    expected = 0.0
    for group in groups(copy.deepcopy(resnet), next(iter(batches()))[0], 10):
        for channel in range(group.channels):
            squares = 0.0
            for layer, side, owned in group.members:
                module = resnet.get_submodule(layer)
                if isinstance(module, nn.Conv2d | nn.Linear):
                    rows = module.weight.detach().index_select(int(side == "in"), torch.tensor(owned[channel]))
                    squares += float(rows.square().sum())
            expected += squares**0.5
    planned, value = penalty(Sparsify("group-lasso", 0.1), resnet, batches, context)
    assert float(value.detach()) == pytest.approx(0.1 * expected, rel=1e-3)
    value.backward()
    assert planned.get_parameter("conv.weight").grad is not None


def test_growing_decay_reaches_the_weakest_channels_only(cnn: Cnn, batches: Batches, context: Made) -> None:
    method = Sparsify("growing", strength=0.5, ratio=0.25)
    model, plan = compress(method, cnn, batches, context())
    before = copy.deepcopy(model.state_dict())
    method.constrain(model, 3, 10)
    fading = {each["members"][0][0]: each["fading"] for each in plan.edit.data["groups"]}
    assert sum(map(len, fading.values())) == 8
    first = model.get_parameter("0.weight").detach() / before["0.weight"]  # its one input belongs to no group
    expected = [0.85 if channel in fading["0"] else 1.0 for channel in range(8)]
    torch.testing.assert_close(first.flatten(1).mean(1), torch.tensor(expected))


def test_structured_cuts_what_has_faded(cnn: Cnn, batches: Batches, context: Made) -> None:
    method = Sparsify("growing", strength=0.9, ratio=0.25)
    model, plan = compress(method, cnn, batches, context())
    for step in range(1, 11):
        method.constrain(model, step, 10)
    _, cut = compress(Structured("l2", 0.25, multiple=1, max_ratio=0.9), model, batches, context())
    for each in plan.edit.data["groups"]:
        kept = cut.edit.data["kept"][each["members"][0][0]]["out"]
        assert not set(kept) & set(each["fading"])


def test_only_the_last_step_counts() -> None:
    assert [Sparsify().settled(step, 4) for step in range(5)] == [False, False, False, False, True]
    assert not Sparsify().settled(0, 0)


def test_bn_scale_after_folding_is_named(cnn: Cnn, batches: Batches, context: Made) -> None:
    folded, _ = compress(Linear(), cnn, batches, context())
    with pytest.raises(MethodError, match=r"here\.kind: bn-scale needs a BatchNorm, and this model has none"):
        Sparsify("bn-scale").plan(folded, batches, context())


def test_a_layer_that_changed_since_is_named(cnn: Cnn, batches: Batches, context: Made) -> None:
    method = Sparsify()
    planned, _ = compress(method, cnn, batches, context())
    pruned, _ = compress(Structured("l1", 0.5, multiple=1), planned, batches, context())
    with pytest.raises(
        MethodError, match=r"\d+: changed after sparsify looked at its channels; let sparsify come last"
    ):
        method.penalty(pruned)
