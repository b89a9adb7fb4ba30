from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from torch import nn

from slimline import measure
from slimline.errors import MethodError
from slimline.latency import Samples
from slimline.method import Batches, Context, Plan
from slimline.methods.linear import Linear
from slimline.models.cnn import Cnn
from slimline.params import Target
from slimline.quantization import dynamic_ranges
from slimline.quantization.keys import Override

Made = Callable[..., Context]
HEAD = "11"  # the one Linear of the net


def dynamic_layers(data: dict[str, Any]) -> set[str]:
    specs = {name: {**data, **data.get("own", {}).get(name, {})} for name in data["layers"]}
    return {name for name, spec in specs.items() if (spec["activation"] or {}).get("dynamic")}


def test_dynamic_ranges_are_for_linear_layers(cnn: Cnn, batches: Batches, context: Made) -> None:
    plan = Linear(ranges="dynamic").plan(cnn, batches, context())
    assert dynamic_layers(plan.edit.data) == {HEAD}


def test_auto_measures_once_and_says_why(cnn: Cnn, batches: Batches, context: Made) -> None:
    asked = context()
    plan = Linear(ranges="auto").plan(cnn, batches, asked)
    taken = asked.decisions.choices["ranges"]
    assert plan.notes[-1] == taken["why"]
    assert dynamic_layers(plan.edit.data) == ({HEAD} if taken["taken"] == "dynamic" else set())
    asked.decisions.choices["ranges"] = {"taken": "dynamic", "why": "recorded"}
    replayed = Linear(ranges="auto").plan(cnn, batches, asked)
    assert dynamic_layers(replayed.edit.data) == {HEAD}


@pytest.mark.parametrize(
    ("faster", "losses", "taken"),
    [
        pytest.param(2.0, (0.0, 0.005), "dynamic", id="faster and as good"),
        pytest.param(2.0, (0.0, 0.2), "static", id="faster and worse"),
        pytest.param(0.5, (0.2, 0.0), "dynamic", id="slower and much better"),
        pytest.param(1.01, (0.0, 0.0), "static", id="in doubt static"),
    ],
)
def test_the_faster_of_the_two_that_is_as_good(
    monkeypatch: pytest.MonkeyPatch, cnn: Cnn, batches: Batches, context: Made,
    faster: float, losses: tuple[float, float], taken: str,
) -> None:  # fmt: skip
    import numpy as np

    def on_best(variants: dict[str, Any], *_: Any) -> tuple[dict[str, dict[int, Samples]], dict[str, str]]:
        seconds = {"static": 1.0, "dynamic": 1.0 / faster}
        found = {kind: {1: Samples(np.full((2, 2), seconds[kind]))} for kind in variants}
        return found, {"static": "openvino", "dynamic": "onnxruntime"}

    found = dict(zip(("static", "dynamic"), losses, strict=True))
    monkeypatch.setattr(measure, "on_best", on_best)
    monkeypatch.setattr(dynamic_ranges, "_loss", lambda folder, _: found[folder.name])
    planned: list[str] = []

    class Counted(Linear):
        def plan(self, model: nn.Module, batches: Batches, context: Context) -> Plan:
            planned.append(self.ranges)
            return super().plan(model, batches, context)

    kinds = {kind: Counted(ranges=kind) for kind in ("static", "dynamic")}  # type: ignore[arg-type]
    asked = replace(context(), target=Target(runtime="auto"))
    plan = dynamic_ranges.plan(kinds, cnn, batches, asked)
    assert planned == ["static", "dynamic"]  # what was made to be measured is kept
    assert plan.edit == kinds[taken].plan(cnn, batches, context()).edit
    assert f"{taken} ranges" in plan.notes[-1]
    assert "(static on openvino, dynamic on onnxruntime)" in plan.notes[-1]
    assert asked.decisions.choices["ranges"]["runtimes"] == {"static": "openvino", "dynamic": "onnxruntime"}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        pytest.param({"learned_steps": True}, "here.ranges: .*no step to learn", id="learned"),
        pytest.param({"activation_bits": 4}, "here.ranges: dynamic takes activations of 8 bits", id="width"),
        pytest.param({"bits": 6}, "here.ranges: dynamic takes activations of 8 bits", id="bits"),
    ],
)
def test_what_dynamic_ranges_cannot_be(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(MethodError, match=said):
        replace(Linear(ranges="dynamic"), **changed).check("here")


@pytest.mark.parametrize("ranges", ["dynamic", "auto"])
def test_a_layers_own_keys_cannot_be_what_dynamic_ranges_cannot(
    cnn: Cnn, batches: Batches, context: Made, ranges: Any
) -> None:
    """Only the method's own width was checked, and the exported file answered otherwise than torch."""
    method = Linear(ranges=ranges, layers={"1*": Override(bits=4)})
    said = f"here.layers: 11 gets activations of 4 bits, ranges: {ranges} takes those of 8; give it weight_bits"
    with pytest.raises(MethodError, match=said):
        method.plan(cnn, batches, context())
    with pytest.raises(MethodError, match=said):
        method.check_model(cnn, batches, context())


@pytest.mark.parametrize(
    ("layers", "skip"),
    [
        pytest.param({"6": Override(bits=4)}, [], id="a convolution"),
        pytest.param({HEAD: Override(weight_bits=4)}, [], id="weights"),
        pytest.param({HEAD: Override(activation_bits=32)}, [], id="float"),
        pytest.param({"*": Override(bits=4)}, [HEAD], id="skipped"),
    ],
)
def test_a_layers_own_keys_beside_dynamic_ranges(
    cnn: Cnn, batches: Batches, context: Made, layers: dict[str, Override], skip: list[str]
) -> None:
    method = Linear(ranges="dynamic", layers=layers, skip=skip)
    method.check_model(cnn, batches, context())
    method.plan(cnn, batches, context())
