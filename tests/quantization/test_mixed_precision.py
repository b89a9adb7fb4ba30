"""Widths and floating-point layers chosen by measurement, within a budget, and their record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from slimline import measure
from slimline.decisions import Decisions
from slimline.errors import MethodError, ParamsError
from slimline.latency import Samples
from slimline.method import Batches, Context, compress
from slimline.methods.linear import Linear
from slimline.methods.symmetric import Symmetric
from slimline.models.cnn import Cnn
from slimline.params import Configured, Target, configure
from slimline.quantization import bit_allocation
from slimline.quantization.keys import Override
from slimline.quantization.mixed_precision import Budget
from slimline.quantization.plan import Quantize
from slimline.quantization.quantizers import QuantizedConv2d, QuantizedLinear, is_quantized
from slimline.sensitivity import Sensitivity

Made = Callable[..., Context]


def auto(method: type[Quantize] = Linear, choices: list[int] | None = None, **budget: Any) -> Quantize:
    return method(bits="auto", choices=choices or [4, 8], budget=Budget(**budget))


def widths(model: nn.Module) -> dict[str, int]:
    """Return the width of each layer's weights; 32 where they carry no quantizer."""
    return {
        name: layer.weight_quantizer.spec.bits if isinstance(layer, QuantizedConv2d | QuantizedLinear) else 32
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    }


def written(model: nn.Module, context: Context) -> int:
    return measure.file_bytes(model, context.task.signature())


@pytest.fixture
def packed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count packed weights in place of writing files, which takes seconds each."""

    def count(model: nn.Module, _: Any) -> int:
        bits = widths(model)
        return 1_000 + sum(bits[name] * model.get_submodule(name).get_parameter("weight").numel() // 8 for name in bits)

    monkeypatch.setattr(measure, "file_bytes", count)


@pytest.fixture
def ends(cnn: Cnn, batches: Batches, context: Made) -> tuple[int, int]:
    """Bytes of the files with all layers at 4 and at 8 bits."""
    made = context()
    small, large = (compress(Linear(weight_bits=b, activation_bits=8), cnn, batches, made)[0] for b in (4, 8))
    return written(small, made), written(large, made)


def test_the_file_as_written_keeps_to_the_bytes(
    cnn: Cnn, batches: Batches, context: Made, ends: tuple[int, int]
) -> None:
    made, budget = context(), sum(ends) // 2
    quantized, plan = compress(auto(bytes=budget), cnn, batches, made)
    assert ends[0] < written(quantized, made) <= budget
    assert set(widths(quantized).values()) == {4, 8}
    assert f"the file has {written(quantized, made):,} of {budget:,} bytes" in plan.notes[-1]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.usefixtures("packed")
def test_a_budget_of_bytes_wastes_no_layer(
    cnn: Cnn, batches: Batches, context: Made, ends: tuple[int, int], share: float
) -> None:
    budget = round(ends[0] + share * (ends[1] - ends[0]))
    made = context()
    method = auto(bytes=budget)
    quantized, plan = compress(method, cnn, batches, made)
    found = widths(quantized)
    assert written(quantized, made) <= budget
    assert (set(found.values()) == {4}) == (share == 0)
    assert (set(found.values()) == {8}) == (share == 1)
    for name in [name for name, bits in found.items() if bits == 4]:
        wider = compress(method.at_widths({**found, name: 8}), cnn, batches, made)[0]
        assert written(wider, made) > budget  # no single layer more would have fitted
    notes = "\n".join(plan.notes)
    assert ("storage only: 4-bit weights" in notes) == (4 in found.values())
    assert f"3: {found['3']} bits: divergence" in notes


@pytest.mark.usefixtures("packed")
def test_no_other_choice_within_the_bytes_loses_less(
    cnn: Cnn, batches: Batches, context: Made, ends: tuple[int, int]
) -> None:
    made, budget = context(), sum(ends) // 2
    chosen = widths(compress(auto(bytes=budget), cnn, batches, made)[0])
    study = Sensitivity(cnn, made)
    cost = {
        (name, bits): study.cost(method, name, alone).divergence
        for bits, method in {bits: Linear(weight_bits=bits, activation_bits=8) for bits in (4, 8)}.items()
        for name, alone in method.alone(cnn, batches, made).items()
    }

    def sums(bits: tuple[int, ...]) -> tuple[int, float]:
        pairs = list(zip(chosen, bits, strict=True))
        weights = {name: cnn.get_submodule(name).get_parameter("weight").numel() for name in chosen}
        return 1_000 + sum(weights[name] * each // 8 for name, each in pairs), sum(cost[pair] for pair in pairs)

    best = min(loss for size, loss in map(sums, product((4, 8), repeat=len(chosen))) if size <= budget)
    assert sums(tuple(chosen.values()))[1] == pytest.approx(best)


@pytest.mark.usefixtures("packed")
def test_a_layer_that_the_answers_hang_on_keeps_its_bits(
    cnn: Cnn, batches: Batches, context: Made, ends: tuple[int, int]
) -> None:
    with torch.no_grad():
        cnn.get_parameter("6.weight").zero_()  # what layers 0 and 3 compute is lost
    found = widths(compress(auto(bytes=ends[0] + 170), cnn, batches, context())[0])
    assert found["11"] == 8
    assert 4 in found.values()


@pytest.mark.parametrize("budget", [0.002, 0.05])
def test_the_loss_rises_by_no_more_than_allowed(cnn: Cnn, batches: Batches, context: Made, budget: float) -> None:
    made = context()
    method = auto(choices=[2, 3, 4, 8], max_loss=budget)
    quantized, plan = compress(method, cnn, batches, made)
    assert Sensitivity(cnn, made).rise(quantized) <= budget
    assert min(widths(quantized).values()) < 8
    assert f"where {budget:g} was allowed, all layers together" in plan.notes[-1]


@pytest.mark.usefixtures("packed")
def test_a_looser_loss_makes_a_smaller_file(cnn: Cnn, batches: Batches, context: Made) -> None:
    made = auto(choices=[2, 4, 8], max_loss=0.002), auto(choices=[2, 4, 8], max_loss=9.0)
    sizes = [written(compress(method, cnn, batches, context())[0], context()) for method in made]
    assert sizes[1] < sizes[0]


@pytest.mark.usefixtures("packed")
@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ({"bytes": 500}, r"here\.budget\.bytes: 500 can't be reached .*: the smallest file is [\d,]+ bytes; raise it"),
        (
            {"max_loss": 0.0},
            r"here\.budget\.max_loss: 0 can't be reached .* the validation loss rises by 0\.\d+; raise",
        ),
    ],
    ids=["bytes", "loss"],
)
def test_an_impossible_budget_says_what_can_be_reached(
    cnn: Cnn, batches: Batches, context: Made, budget: dict[str, Any], message: str
) -> None:
    with pytest.raises(MethodError, match=message) as caught:
        compress(auto(choices=[2, 3], **budget), cnn, batches, context())
    assert "\n" not in str(caught.value)


# --- time ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replace measuring by a machine on which int8 takes half the time of a layer, but twice that of layer 0."""
    asked: list[str] = []

    def seconds(layer: nn.Module) -> float:
        weight = layer.get_parameter("weight")
        integers = isinstance(layer, QuantizedConv2d | QuantizedLinear) and layer.weight_quantizer.spec.bits > 4
        return weight.numel() * (1.0 if not integers else 2.0 if weight.shape[1] == 1 else 0.5)

    def layers(variants: Mapping[str, nn.Module], shape: Any, target: Target) -> dict[str, dict[int, float]]:
        asked.append("layers")
        return {name: dict.fromkeys(target.batch_sizes, seconds(layer)) for name, layer in variants.items()}

    def models(variants: Mapping[str, nn.Module], *_: Any) -> dict[str, dict[int, Samples]]:
        asked.append("models")
        kinds = (nn.Conv2d, nn.Linear)
        times = {
            name: sum(seconds(layer) for layer in model.modules() if isinstance(layer, kinds))
            for name, model in variants.items()
        }
        return {name: dict.fromkeys((1, 8), Samples(np.full((4, 2), time))) for name, time in times.items()}

    monkeypatch.setattr(measure, "layers", layers)
    monkeypatch.setattr(measure, "models", models)
    return asked


@pytest.mark.parametrize("budget", [0.55, 0.8, 0.95])
def test_the_model_keeps_to_its_share_of_time(
    cnn: Cnn, batches: Batches, context: Made, clock: list[str], budget: float
) -> None:
    made = context()
    quantized, plan = compress(auto(choices=[8, 32], latency=budget), cnn, batches, made)
    found = widths(quantized)
    times = measure.models({"a": cnn, "b": quantized}, {}, made.calibration, made.target)
    assert times["b"][1].p50 <= budget * times["a"][1].p50
    assert found["0"] == 32  # slower in integers, and less exact
    assert 8 in found.values()
    assert "of the input model's time where" in plan.notes[-1]


def test_an_impossible_latency_says_the_fastest(cnn: Cnn, batches: Batches, context: Made, clock: list[str]) -> None:
    with pytest.raises(
        MethodError, match=r"here\.budget\.latency: 0.3 can't be reached .* the fastest takes 0\.5\d of"
    ):
        compress(auto(choices=[8, 32], latency=0.3), cnn, batches, context())


def test_on_a_real_runtime_the_whole_model_is_measured(
    cnn: Cnn, batches: Batches, context: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("LAYER_ROUNDS", 1), ("LAYER_REPEATS", 2), ("MODEL_ROUNDS", 1), ("MODEL_REPEATS", 2)):
        monkeypatch.setattr(measure, name, value)
    monkeypatch.setattr(bit_allocation, "TRIES", 1)
    with pytest.raises(
        MethodError, match=r"0\.001 can't be reached .* the fastest takes \d\.\d\d of .* time, measured"
    ):
        compress(auto(choices=[8, 32], latency=0.001), cnn, batches, context())


# --- skip: auto ------------------------------------------------------------------------------------------------------


def test_layers_that_cost_too_much_or_run_slower_stay_in_floating_point(
    cnn: Cnn, batches: Batches, context: Made, clock: list[str]
) -> None:
    quantized, plan = compress(Linear(skip="auto", max_loss=1.0), cnn, batches, context())
    assert widths(quantized) == {"0": 32, "3": 8, "6": 8, "11": 8}
    assert any(note.startswith("0: stays in floating point: without its quantizers") for note in plan.notes)

    made, coarse = context(), Linear(weight_bits=2, activation_bits=8)
    study = Sensitivity(cnn, made)
    rises = {name: study.cost(coarse, name, each).rise for name, each in coarse.alone(cnn, batches, made).items()}
    limit = sorted(rises.values())[-2]
    assert limit > 0
    careful, _ = compress(replace(coarse, skip="auto", max_loss=limit), cnn, batches, made)
    assert {name for name, bits in widths(careful).items() if bits == 32} == {max(rises, key=lambda name: rises[name])}


def test_when_nothing_may_cost_anything_nothing_is_left_to_quantize(
    cnn: Cnn, batches: Batches, context: Made, clock: list[str]
) -> None:
    with pytest.raises(
        MethodError, match=r"here\.max_loss: 0 leaves no layer to quantize: the least that one costs is"
    ):
        compress(Linear(bits=2, skip="auto", max_loss=0.0), cnn, batches, context())


# --- record and cache ------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("packed")
def test_the_choice_is_recorded_and_replayed(
    cnn: Cnn, batches: Batches, context: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: tuple[int, int]
) -> None:
    method = auto(bytes=sum(ends) // 2)
    made = replace(context(), decisions=Decisions(tmp_path / "quantize.json", {}))
    first = method.plan(cnn, batches, made)

    def never(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(Sensitivity, "_measure", never)
    monkeypatch.setattr(measure, "file_bytes", never)
    again = method.plan(cnn, batches, replace(made, decisions=Decisions(tmp_path / "quantize.json", {})))
    assert again.edit == first.edit
    assert again.notes == first.notes
    assert all(torch.equal(first.tensors[name], again.tensors[name]) for name in first.tensors)


@pytest.mark.usefixtures("packed")
def test_widths_rest_on_what_the_study_has_measured(
    cnn: Cnn, batches: Batches, context: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: tuple[int, int]
) -> None:
    """`slimline sensitivity` measures `linear` at its widths; the same trials aren't measured again."""
    made = replace(context(), cache=tmp_path)
    study = Sensitivity(cnn, made)
    for bits in (4, 8):
        method = configure("methods", Configured(name="linear", weight_bits=bits, activation_bits=8), "here")
        for name, alone in method.alone(cnn, batches, made).items():
            study.cost(method, name, alone)

    def never(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(Sensitivity, "_measure", never)
    compress(auto(bytes=sum(ends) // 2), cnn, batches, made)


# --- keys ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"bits": "auto"}, r"here\.budget: bits: auto keeps to one of bytes, latency, max_loss; found nothing"),
        ({"bits": "auto", "budget": {"bytes": 9, "latency": 0.5}}, r"found bytes and latency"),
        ({"budget": {"bytes": 9}}, r"here\.budget: it is read with bits: auto alone, and bits is 8"),
        ({"bits": "auto", "weight_bits": 4, "budget": {"bytes": 9}}, r"here\.weight_bits: bits: auto chooses them"),
        ({"bits": "auto", "skip": "auto", "budget": {"bytes": 9}}, r"here\.skip: .* add 32 to choices"),
        ({"bits": "auto", "choices": [8], "budget": {"bytes": 9}}, r"here\.choices: \[8\] leaves nothing to choose"),
    ],
    ids=["no budget", "two budgets", "not auto", "weights", "skip", "one choice"],
)
def test_keys_that_contradict_each_other_are_named(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(MethodError, match=message):
        configure("methods", Configured(name="linear", **keys), "here").check("here")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"bits": "atuo"}, r"here\.bits: "),
        ({"bits": "auto", "choices": [4, 17]}, r"here\.choices\.1: "),
        (
            {"bits": "auto", "budget": {"latency": 1.5}},
            r"here\.budget\.latency: input should be less than 1, found 1.5",
        ),
        ({"bits": "auto", "budget": {"byte": 5}}, r"here\.budget\.byte: unknown key"),
    ],
    ids=["bits", "choices", "range", "unknown"],
)
def test_wrong_keys_are_named(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        configure("methods", Configured(name="linear", **keys), "here")


@pytest.mark.usefixtures("packed")
def test_a_layer_with_a_width_of_its_own_keeps_it(
    cnn: Cnn, batches: Batches, context: Made, ends: tuple[int, int]
) -> None:
    method = replace(auto(Symmetric, bytes=ends[1]), layers={"3": Override(bits=6)}, skip=["0"])
    found = widths(compress(replace(method, budget=Budget(bytes=10 * ends[1])), cnn, batches, context())[0])
    assert (found["0"], found["3"]) == (32, 6)


def test_float_is_no_choice_for_a_model_that_carries_quantizers(cnn: Cnn, batches: Batches, context: Made) -> None:
    quantized, _ = compress(Linear(), cnn, batches, context())
    assert is_quantized(quantized)
    with pytest.raises(MethodError, match=r"here\.choices: 32: the model carries quantizers"):
        compress(auto(choices=[4, 32], bytes=9_999), quantized, batches, context())
    with pytest.raises(MethodError, match=r"here\.skip: auto: the model carries quantizers"):
        compress(Linear(skip="auto"), quantized, batches, context())
