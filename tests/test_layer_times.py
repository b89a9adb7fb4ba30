"""Pruning by measured time: the tables, the choice, and its record."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from slimline import layer_times, measure
from slimline.errors import MethodError
from slimline.latency import Samples
from slimline.layer_times import Table, TimedCost, resized
from slimline.method import Batches, Context, compress
from slimline.methods.structured import Structured
from slimline.models.cnn import Cnn
from slimline.models.resnet import ResNet
from slimline.params import Target
from slimline.pruning.channels import groups
from slimline.pruning.widths import Limits
from slimline.quantization.quantizers import QuantizedConv2d, QuantizedLinear, Spec, quantize_layer

Made = Callable[..., Context]
BATCHES = (1, 8)


@settings(max_examples=50)
@given(st.data())
def test_a_table_is_exact_where_it_was_measured_and_linear_between(data: st.DataObject) -> None:
    outs, ins = (sorted(data.draw(st.sets(st.integers(1, 64), min_size=2, max_size=5))) for _ in range(2))
    costs = np.random.default_rng(data.draw(st.integers(0, 99))).random((len(outs), len(ins)))
    table = Table(outs, ins, costs)
    for row, out in enumerate(outs):
        for column, into in enumerate(ins):
            assert table.at(out, into) == pytest.approx(costs[row, column])
    (low, high), column = data.draw(st.sampled_from(list(pairwise(outs)))), data.draw(st.integers(0, len(ins) - 1))
    middle = (table.at(low, ins[column]) + table.at(high, ins[column])) / 2
    assert table.at((low + high) / 2, ins[column]) == pytest.approx(middle)


@pytest.mark.parametrize(
    "layer",
    [nn.Conv2d(8, 16, 3), nn.Linear(8, 16), nn.Conv2d(16, 16, 3, groups=16)],
    ids=["conv", "linear", "depthwise"],
)
@pytest.mark.parametrize("quantized", [False, True], ids=["float", "int8"])
def test_a_resized_layer_runs_at_its_new_width(layer: nn.Module, quantized: bool) -> None:
    whole = quantize_layer(layer, Spec(axis=0), Spec()) if quantized else layer
    narrow = resized(whole, 6, 3)
    image = isinstance(layer, nn.Conv2d)
    read = 6 if image and cast(nn.Conv2d, layer).groups > 1 else 3
    out = narrow(torch.rand(2, read, 5, 5) if image else torch.rand(2, read))
    assert out.shape[1] == 6
    assert cast(Tensor, whole.weight).shape[0] == 16


def blocks(layer: nn.Module) -> float:
    """Seconds of a made-up kernel that works in blocks of 16 channels and stumbles over 8."""
    out, into = cast(Tensor, layer.weight).shape[:2]
    rows, columns = (math.ceil(size / 16) * 16 + (12 if size <= 8 else 0) for size in (out, into))
    return rows * columns * 1e-6


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replace measuring by ``blocks``; returns the record of what was measured."""
    asked: list[str] = []

    def layers(variants: Mapping[str, nn.Module], shape: Any, target: Target) -> dict[str, dict[int, float]]:
        asked.append("layers")
        return {name: dict.fromkeys(target.batch_sizes, blocks(layer)) for name, layer in variants.items()}

    def models(variants: Mapping[str, nn.Module], *_: Any) -> dict[str, dict[int, Samples]]:
        asked.append("models")
        kinds = (nn.Conv2d, nn.Linear)
        times = {
            name: sum(blocks(layer) for layer in model.modules() if isinstance(layer, kinds)) + 1e-4
            for name, model in variants.items()
        }
        return {name: dict.fromkeys(BATCHES, Samples(np.full((4, 2), seconds))) for name, seconds in times.items()}

    monkeypatch.setattr(measure, "layers", layers)
    monkeypatch.setattr(measure, "models", models)
    return asked


@pytest.fixture
def wide() -> ResNet:
    torch.manual_seed(0)
    return ResNet(depth=8, width=32, stem_stride=1).eval()


def outputs(model: nn.Module) -> set[int]:
    return {layer.out_channels for layer in model.modules() if isinstance(layer, nn.Conv2d)}


@pytest.mark.parametrize("ratio", [0.3, 0.6])
def test_the_share_of_time_goes_and_no_layer_stays_at_a_slow_width(
    wide: ResNet, batches: Batches, context: Made, made_up: list[str], ratio: float
) -> None:
    pruned, plan = compress(Structured("l1", ratio, of="latency", max_ratio=0.9), wide, batches, context())
    times = {name: samples[1].p50 for name, samples in measure.models({"a": wide, "b": pruned}).items()}  # type: ignore[call-arg]
    assert times["b"] / times["a"] <= 1 - ratio
    assert times["b"] / times["a"] > 1 - ratio - 0.25  # and not far more
    assert 8 not in outputs(pruned)  # which by multiply-adds would be a bargain
    by_macs, _ = compress(Structured("l1", 0.9, of="macs", max_ratio=0.9), wide, batches, context())
    assert 8 in outputs(by_macs)
    assert f"of the time is gone where {ratio:.0%} was asked, measured on the whole model" in plan.notes[-1]
    assert made_up.count("models") >= 2


def test_the_choice_is_recorded_and_replayed(wide: ResNet, batches: Batches, context: Made, made_up: list[str]) -> None:
    made, method = context(), Structured("l1", 0.4, of="latency")
    first = method.plan(wide, batches, made)
    measured = len(made_up)
    again = method.plan(wide, batches, made)
    assert len(made_up) == measured
    assert again.edit == first.edit
    assert again.notes == first.notes
    layers = made.decisions.choices["structured"]["layers"]
    assert all(layer["why"] == f"{layer['width']} of {layer['why'].split()[2]} channels" for layer in layers.values())


def test_layers_that_are_alike_are_timed_once(batches: Batches, made_up: list[str]) -> None:
    model = ResNet(depth=20, width=16, stem_stride=1).eval()
    inputs, _ = next(iter(batches()))
    found = groups(model, inputs, 10)
    whole = dict.fromkeys(BATCHES, 1.0)
    target = Target(batch_sizes=list(BATCHES))
    tables = layer_times.tables(found, model, inputs, whole, Limits(8, 0.75), target)
    assert len(tables) == sum(isinstance(layer, nn.Conv2d | nn.Linear) for layer in model.modules())
    assert made_up.count("layers") < len(tables)
    cost = TimedCost(found, model, tables)
    widths = [group.channels for group in found]
    assert cost.total(widths) == pytest.approx(1)
    halved = [group.channels // 2 for group in found]
    saved = sum(float(table.costs[-1, -1]) for table in tables.values()) - sum(cost.layer(n, halved) for n in tables)
    assert cost.total(halved) == pytest.approx(1 - saved)


@pytest.mark.parametrize("kernels", ["as-is", "int8"])
def test_on_a_real_runtime_it_says_what_it_measured(
    cnn: Cnn, batches: Batches, context: Made, monkeypatch: pytest.MonkeyPatch, kernels: Any
) -> None:
    for name, value in (("LAYER_ROUNDS", 1), ("LAYER_REPEATS", 3), ("MODEL_ROUNDS", 2), ("MODEL_REPEATS", 3)):
        monkeypatch.setattr(measure, name, value)
    monkeypatch.setattr(layer_times, "TRIES", 1)
    made = context()
    method = Structured("l1", 0.2, of="latency", multiple=4, kernels=kernels)
    _, plan = compress(method, cnn, batches, made)
    assert "measured on the whole model (batch 1: " in plan.notes[-1]
    assert made.decisions.choices["structured"]["summary"] == plan.notes[-1]


def test_layers_that_quantize_will_skip_are_timed_in_floating_point(cnn: Cnn, batches: Batches, context: Made) -> None:
    timed = layer_times.as_int8(cnn, batches, context(), ["0", "1*"])
    integers = {name for name, layer in timed.named_modules() if isinstance(layer, QuantizedConv2d | QuantizedLinear)}
    assert integers == {"3", "6"}
    method = Structured("l1", 0.2, of="latency", kernels="int8", float_layers=["conv"])
    with pytest.raises(MethodError, match=r"here\.float_layers: 'conv' matches no layer; layers: 0, 3, 6"):
        method.plan(cnn, batches, context())
