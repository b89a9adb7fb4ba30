from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from slimline.lint import Finding, lint

from .models import convolution, residual
from .test_tensorrt import integer_convolution

U8 = np.uint8(0)


def found(made: Any, folder: Path) -> list[Finding]:
    onnx.save(made, folder / "model.onnx")
    return lint(folder / "model.onnx", "onnxruntime")


def optimized(made: Any, folder: Path) -> Counter[str]:
    """Return how many nodes of each operator ONNX Runtime would run."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    onnxruntime.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node)


UNFUSED = [
    pytest.param(convolution(zero=U8, quantized=False), "float-layer", "QLinearConv", id="float input"),
    pytest.param(convolution(zero=U8, after="nothing"), "float-output", "QLinearConv", id="float output"),
    pytest.param(convolution(zero=np.uint8(128), after="relu"), "relu", "QLinearConv", id="relu before uint8 128"),
    pytest.param(convolution(zero=np.int8(0), after="relu"), "relu", "QLinearConv", id="relu before int8 0"),
    pytest.param(residual(quantized=("a",), zero=U8), "residual", "QLinearAdd", id="half of a sum quantized"),
    pytest.param(
        convolution(zero=U8, bias="int32", bias_scale=0.001), "bias-scale", "QLinearConv", id="another bias scale"
    ),
    pytest.param(integer_convolution(), "dynamic", "QLinearConv", id="dynamic ranges"),
]
FUSED = [
    pytest.param(convolution(zero=U8), "QLinearConv", id="convolution"),
    pytest.param(convolution(zero=U8, after="relu"), "QLinearConv", id="relu before uint8 0"),
    pytest.param(convolution(zero=U8, bias="int32"), "QLinearConv", id="int32 bias"),
    pytest.param(residual(zero=U8), "QLinearAdd", id="sum"),
]


@pytest.mark.parametrize(("made", "rule", "kernel"), UNFUSED)
def test_what_runs_in_floats_is_named(made: Any, rule: str, kernel: str, tmp_path: Path) -> None:
    assert {(each.rule, each.effect) for each in found(made, tmp_path)} == {(rule, "slow")}
    assert not optimized(made, tmp_path)[kernel]


@pytest.mark.parametrize(("made", "kernel"), FUSED)
def test_what_runs_in_integers_is_not(made: Any, kernel: str, tmp_path: Path) -> None:
    assert found(made, tmp_path) == []
    assert optimized(made, tmp_path)[kernel] == 1


def test_a_scale_for_each_channel_of_an_activation_fails_when_it_runs(tmp_path: Path) -> None:
    scale = np.linspace(0.01, 0.1, 8, dtype=np.float32)
    made = convolution(zero=np.zeros(8, np.uint8), scale=scale, activation_axis=1, bias="none")
    assert {(each.rule, each.effect) for each in found(made, tmp_path)} == {("channel-activation", "rejected")}
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    with pytest.raises(Exception, match="zero point must be a scalar"):
        session.run(None, {"x": np.ones((1, 8, 8, 8), np.float32)})


@pytest.mark.parametrize(("channels", "rules"), [(8, []), (16, []), (12, ["width"]), (33, ["width"])])
def test_odd_widths_are_named(channels: int, rules: list[str], tmp_path: Path) -> None:
    assert [each.rule for each in found(convolution(zero=U8, channels=channels), tmp_path)] == rules


def test_the_runtime_has_the_last_word(tmp_path: Path) -> None:
    made = convolution(zero=U8)
    made.graph.node[3].op_type = "Winograd"
    (only,) = found(made, tmp_path)
    assert (only.rule, only.effect) == ("session", "rejected")
    assert "Winograd" in only.saw
    assert "\n" not in str(only)
