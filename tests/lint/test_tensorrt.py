from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from slimline import engines
from slimline.errors import ExportError
from slimline.lint import Finding, lint
from slimline.lint.tensorrt import UNSUPPORTED

from .models import convolution, model, node, residual

ROWS = {"x": ((1, 8, 8, 8), (8, 8, 8, 8), (32, 8, 8, 8))}


def integer_convolution() -> Any:
    nodes = [node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]), node("ConvInteger", ["q", "w", "z"], ["y"])]
    return model(nodes, {"w": np.ones((8, 8, 3, 3), np.int8)}, output=TensorProto.INT32)


def mixed(kind: str, value: Any) -> Any:
    return model([node(kind, ["x", "v"], ["y"])], {"v": value.astype(np.float16)})


def no_zero_point() -> Any:
    """ONNX's default for a zero point left out is uint8."""
    made = convolution()
    del made.graph.node[0].input[2:], made.graph.node[1].input[2:]
    return made


def found(made: Any, folder: Path) -> list[Finding]:
    onnx.save(made, folder / "model.onnx")
    return lint(folder, "tensorrt")


INT16 = convolution(zero=np.int16(0))
CHANNELS = np.full(8, 0.05, np.float32)
REJECTED = [
    pytest.param(convolution(zero=np.uint8(128)), "zero-point", "node 0 QuantizeLinear", id="uint8 zero point 128"),
    pytest.param(convolution(zero=np.int8(3)), "zero-point", "node 0 QuantizeLinear", id="int8 zero point 3"),
    pytest.param(
        convolution(weight_zero=np.arange(8).astype(np.int8)), "zero-point", "node 2 Dequant", id="weights' zero points"
    ),
    pytest.param(
        convolution(weight=np.ones((8, 8, 3, 3), np.uint8), weight_zero=np.zeros(8, np.uint8)),
        "unsigned", "node 2 DequantizeLinear", id="uint8 weights",
    ),
    pytest.param(convolution(bias="int32"), "integer-bias", "node 3 DequantizeLinear", id="int32 bias"),
    pytest.param(convolution(scale=np.float32(0)), "scale", "node 0 QuantizeLinear", id="scale 0"),
    pytest.param(convolution(scale=np.float32(-0.05)), "scale", "node 0 QuantizeLinear", id="scale below 0"),
    pytest.param(model([node("Det", ["x"], ["y"])], {}), "operator", "node 0 Det", id="unknown operator"),
    pytest.param(integer_convolution(), "operator", "node 0 DynamicQuantizeLinear", id="integer operators"),
    pytest.param(mixed("Add", np.ones(8)), "mixed-types", "node 0 Add", id="sum of float and float16"),
    pytest.param(mixed("Conv", np.ones((8, 8, 3, 3))), "mixed-types", "node 0 Conv", id="float16 weights, float input"),
    pytest.param(
        model([node("Concat", ["x", "v"], ["y"], axis=1)], {"v": np.ones((1, 1, 8, 8), np.float16)}),
        "mixed-types", "node 0 Concat", id="float and float16 joined",
    ),
]  # fmt: skip
ACCEPTED = [
    pytest.param(convolution(zero=np.uint8(0)), "unsigned", "misread", id="uint8 activations"),
    pytest.param(no_zero_point(), "unsigned", "misread", id="zero points left out"),
    pytest.param(
        convolution(zero=np.zeros(8, np.int8), scale=CHANNELS, activation_axis=1),
        "channel-activation", "slow", id="a scale for each channel of an activation",
    ),
    pytest.param(convolution(weight_axis=1), "weight-axis", "slow", id="weights by input channel"),
    pytest.param(residual(quantized=("a",)), "residual", "slow", id="half of a sum quantized"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("made", "rule", "place"),
    [*REJECTED, pytest.param(INT16, "width", "node 0 QuantizeLinear", id="int16 activations")],
)
def test_what_the_parser_rejects_is_named(made: Any, rule: str, place: str, tmp_path: Path) -> None:
    first = next(each for each in found(made, tmp_path) if each.rule == rule)
    assert first.effect == "rejected"
    assert first.node.startswith(place)
    assert first.change


@pytest.mark.tensorrt
@pytest.mark.parametrize(("made", "rule", "place"), REJECTED)
def test_the_real_parser_rejects_the_node_that_is_named(made: Any, rule: str, place: str, tmp_path: Path) -> None:
    index, kind, _ = engines.Parsed(made.SerializeToString()).errors[0]
    first = next(each for each in found(made, tmp_path) if each.rule == rule)
    assert first.node.startswith(f"node {index} {kind} ")


@pytest.mark.tensorrt
def test_the_real_parser_stops_at_an_int16_constant_before_any_node(tmp_path: Path) -> None:
    """It names the zero point; each node that reads it is named here."""
    parsed = engines.Parsed(INT16.SerializeToString())
    assert [index for index, _, _ in parsed.errors] == [-1]
    constant = parsed._log.lines[-1].rpartition(" initializer: ")[2]
    readers = {index for index, each in enumerate(INT16.graph.node) if constant in each.input}
    named = {int(each.node.split()[1]) for each in found(INT16, tmp_path) if each.rule == "width"}
    assert readers
    assert readers <= named


@pytest.mark.parametrize(("made", "rule", "effect"), ACCEPTED)
def test_what_is_accepted_but_wrong_or_slow_is_named(made: Any, rule: str, effect: str, tmp_path: Path) -> None:
    assert {(each.rule, each.effect) for each in found(made, tmp_path)} == {(rule, effect)}


@pytest.mark.tensorrt
@pytest.mark.parametrize(("made", "rule", "effect"), ACCEPTED)
def test_the_real_parser_accepts_it(made: Any, rule: str, effect: str) -> None:
    assert engines.Parsed(made.SerializeToString()).errors == []


@pytest.mark.parametrize("made", [convolution(), residual(), convolution(after="relu")], ids=["conv", "sum", "relu"])
def test_a_good_model_has_no_findings(made: Any, tmp_path: Path) -> None:
    assert found(made, tmp_path) == []


def test_a_dynamic_axis_beside_the_batch_is_named(tmp_path: Path) -> None:
    made = model([node("Relu", ["x"], ["y"])], {}, inputs={"x": ["batch", 8, 8, "width"]})
    (only,) = found(made, tmp_path)
    assert (only.rule, only.node, only.effect) == ("dynamic-axis", "input 'x'", "not built")
    assert "width" in only.change


@pytest.mark.tensorrt
def test_no_engine_is_built_without_a_range_for_that_axis() -> None:
    made = model([node("Relu", ["x"], ["y"])], {}, inputs={"x": ["batch", 8, 8, "width"]})
    parsed = engines.Parsed(made.SerializeToString())
    assert parsed.errors == []
    with pytest.raises(ExportError, match="missing dimensions in profile"):
        parsed.build({}, [86])
    wide = {"x": ((1, 8, 8, 1), (8, 8, 8, 8), (32, 8, 8, 16))}
    assert engines.Parsed(made.SerializeToString()).build(wide, [86])


@pytest.mark.tensorrt
def test_the_parser_has_the_last_word(tmp_path: Path) -> None:
    made = model([node("QuickGelu", ["x"], ["y"], domain="com.microsoft")], {})
    made.opset_import.add(domain="com.microsoft", version=1)
    (only,) = found(made, tmp_path)
    assert (only.rule, only.effect) == ("parser", "rejected")
    assert only.node.startswith("node 0 QuickGelu")
    assert "Plugin not found" in only.saw


@pytest.mark.tensorrt
def test_the_list_of_operators_is_the_parsers_own() -> None:
    """In ONNX's standard domain; a newer onnx may know more."""
    parser = engines.Parsed(convolution().SerializeToString())._parser
    standard = {schema.name for schema in onnx.defs.get_all_schemas() if not schema.domain}
    assert {name for name in standard if not parser.supports_operator(name)} == UNSUPPORTED & standard
