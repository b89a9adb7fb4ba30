"""Masked weights are zero for good: through recovery, every later method, saving and export."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from torch import Tensor, nn

from slimline import artifact
from slimline.artifact import Artifact
from slimline.errors import MethodError
from slimline.export.onnx import to_onnx
from slimline.method import Batches, Context, Edit, compress
from slimline.methods.linear import Linear
from slimline.methods.magnitude import Magnitude
from slimline.methods.n_m import NM
from slimline.methods.structured import Structured
from slimline.methods.svd import Svd
from slimline.methods.symmetric import Symmetric
from slimline.models.resnet import ResNet
from slimline.params import Training
from slimline.pruning import masks
from slimline.task import Split
from slimline.tasks.digits import Digits
from slimline.training import State, fit
from slimline.training.losses import SoftTargets

Made = Callable[..., Context]
MASKING = [Magnitude(0.7), NM(2, 4)]
LATER = [Linear(), Symmetric(), Structured("l1", ratio=0.4, multiple=2), Magnitude(0.8), NM(1, 2)]


def zeros(layer: nn.Module) -> int:
    return int((masks.weight(layer) == 0).sum())


def violations(model: nn.Module) -> int:
    """Return how many masked weights are not zero."""
    return sum(int(masks.weight(layer)[~masks.live(layer)].count_nonzero()) for layer in masks.masked(model).values())


@pytest.fixture
def masked(resnet: ResNet, batches: Batches, context: Made) -> nn.Module:
    return compress(Magnitude(0.7), resnet, batches, context())[0]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("quantized", [False, True], ids=["float", "int8"])
def test_zeros_outlive_a_training_that_knows_no_mask(
    masked: nn.Module, task: Digits, splits: dict[str, Split], batches: Batches, context: Made, tmp_path: Path,
    optimizer: str, quantized: bool,
) -> None:  # fmt: skip
    model = compress(Linear(), masked, batches, context())[0] if quantized else masked
    before = copy.deepcopy(model.state_dict())
    plan = Training(epochs=2, batch_size=50, lr=0.05, weight_decay=0.01, optimizer=cast(Any, optimizer))
    fit(
        model, task, splits["train"].head(100), splits["validation"].head(50), plan,
        loss=SoftTargets(), seed=0, state=State({}, tmp_path), where="here",
    )  # fmt: skip
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {f"{name}.weight" for name in masks.masked(model)} <= moved
    assert not any(name.endswith(masks.NAME) for name in moved)
    assert violations(model) == 0


@pytest.mark.parametrize("later", LATER, ids=lambda each: type(each).__name__)
@pytest.mark.parametrize("first", MASKING, ids=lambda each: type(each).__name__)
def test_later_methods_keep_zeros_and_loading_gives_them_back(
    resnet: ResNet, batches: Batches, context: Made, images: Tensor, described: dict[str, Artifact], tmp_path: Path,
    first: Any, later: Any,
) -> None:  # fmt: skip
    before, one = compress(first, resnet, batches, context())
    after, two = compress(later, before, batches, context())
    assert masks.masked(after).keys() >= masks.masked(before).keys()
    assert violations(after) == 0
    kept = two.edit.data.get("kept", {})
    for name, layer in masks.masked(before).items():
        mask = masks.live(layer)
        sides = kept.get(name, {})
        for axis, side in ((0, "out"), (1, "in")):
            mask = mask.index_select(axis, torch.tensor(sides[side])) if side in sides else mask
        now = masks.live(after.get_submodule(name))
        assert not (now & ~mask).any()
        assert isinstance(later, Magnitude | NM) or torch.equal(now, mask)
    artifact.save(tmp_path / "made", after, replace(described["resnet"], edits=[one.edit, two.edit]))
    loaded, _ = artifact.load(tmp_path / "made")
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in after.state_dict().items())
    assert torch.equal(loaded(images), after.eval()(images))


def test_a_folded_and_rounded_weight_is_zero_where_it_was(masked: nn.Module, batches: Batches, context: Made) -> None:
    quantized, _ = compress(Linear(weights="linear"), masked, batches, context())
    layer = cast(Any, quantized.get_submodule("stages.1.0.conv1"))
    assert not layer.quantized_weight()[~layer.weight_mask].any()


def test_a_factorized_layer_loses_its_mask_and_says_so(masked: nn.Module, batches: Batches, context: Made) -> None:
    factorized, plan = compress(Svd(), masked, batches, context(svd={"fc": [4]}))
    assert "fc: its mask is dropped, the factors are dense" in plan.notes
    assert not any(name.startswith("fc.") for name in masks.masked(factorized))
    assert "conv" in masks.masked(factorized)


def test_exported_integers_are_zero_where_the_mask_is(
    masked: nn.Module, task: Digits, batches: Batches, context: Made
) -> None:
    quantized, _ = compress(Symmetric(), masked, batches, context())
    graph = to_onnx(quantized, task.signature())
    assert isinstance(graph, onnx.ModelProto)
    stored = [numpy_helper.to_array(each) for each in graph.graph.initializer]
    assert not any(array.dtype == bool for array in stored)
    for layer in masks.masked(quantized).values():
        mask = masks.live(layer)
        integers = next(each for each in stored if each.shape == tuple(mask.shape) and each.dtype == "int8")
        assert integers.size - (integers != 0).sum() >= (~mask).sum()


def test_a_mask_of_another_shape_is_named(masked: nn.Module) -> None:
    layer = cast(nn.Linear, masked.get_submodule("fc"))
    layer.weight = nn.Parameter(layer.weight.detach()[:, :4].clone())
    with pytest.raises(MethodError, match=r"fc: its mask is \[10, 32\], its weight \[10, 4\]; slice both"):
        masks.enforce(masks.masked(masked))


@pytest.mark.parametrize("method", [Magnitude(skip=["nothing.*"]), NM(skip=["nothing.*"])], ids=["magnitude", "n-m"])
def test_a_glob_that_matches_nothing_is_named(method: Any, resnet: ResNet, batches: Batches, context: Made) -> None:
    with pytest.raises(MethodError, match=r"here\.skip: 'nothing\.\*' matches no layer; layers: conv, stages"):
        method.plan(resnet, batches, context())


def test_attaching_twice_keeps_the_mask() -> None:
    model = nn.Sequential(nn.Linear(3, 2))
    masks.attach(model, ["0"])
    masks.live(model[0])[0] = False
    masks.attach(model, ["0"])
    assert masks.live(model[0]).tolist() == [[False] * 3, [True] * 3]


@settings(max_examples=50)
@given(st.integers(1, 40), st.integers(0, 1000), st.data())
def test_the_smallest_go_and_the_dead_first(size: int, seed: int, data: st.DataObject) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(size, generator=generator).mul(8).round()  # ties, on purpose
    lives = torch.rand(size, generator=generator) < 0.7
    count = data.draw(st.integers(0, size))
    keep = masks.smallest(values, count, lives)
    assert int((~keep).sum()) == max(count, int((~lives).sum()))
    assert not (keep & ~lives).any()
    gone = lives & ~keep
    if gone.any() and keep.any():
        assert values[gone].max() <= values[keep].min()


def test_an_edit_holds_no_tensor(resnet: ResNet, batches: Batches, context: Made) -> None:
    plan = Magnitude(0.5, scope="layer").plan(resnet, batches, context())
    assert plan.edit == Edit("magnitude", {"layers": dict.fromkeys(masks.maskable(resnet, [], "here"), 0.5)})
