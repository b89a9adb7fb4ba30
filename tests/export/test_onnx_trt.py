from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from torch import Tensor, nn

from slimline import engines
from slimline.decisions import Decisions
from slimline.export.graph import attribute
from slimline.export.onnx_trt import OnnxTrt
from slimline.lint import lint
from slimline.method import Context, compress
from slimline.methods.linear import Linear
from slimline.tasks.digits import Digits
from tests.graphs import counts

ForTensorRt = Callable[[str], tuple[nn.Module, Path]]
Answer = Callable[[Any, NDArray[np.float32]], NDArray[np.float32]]
KINDS = ["resnet-symmetric", "resnet-linear", "resnet-fp16", "cnn-linear"]


def constants(model: Any) -> dict[str, NDArray[Any]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def makers(model: Any) -> dict[str, Any]:
    return {output: node for node in model.graph.node for output in node.output}


@pytest.mark.parametrize("kind", KINDS)
def test_every_zero_point_is_int8_and_0(for_tensorrt: ForTensorRt, kind: str) -> None:
    graph = onnx.load(for_tensorrt(kind)[1])
    values = constants(graph)
    pairs = [node for node in graph.graph.node if node.op_type in {"QuantizeLinear", "DequantizeLinear"}]
    assert pairs
    assert {values[node.input[2]].dtype for node in pairs} == {np.dtype(np.int8)}
    assert not any(values[node.input[2]].any() for node in pairs)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_int8_by_output_channel_and_biases_float(for_tensorrt: ForTensorRt, kind: str) -> None:
    graph = onnx.load(for_tensorrt(kind)[1])
    values, made = constants(graph), makers(graph)
    layers = [node for node in graph.graph.node if node.op_type in {"Conv", "Gemm"}]
    assert len(layers) == (10 if kind.startswith("resnet") else 4)
    for node in layers:
        x, w = (made[name] for name in node.input[:2])
        assert x.op_type == w.op_type == "DequantizeLinear"
        assert values[w.input[0]].dtype == np.int8
        assert values[w.input[1]].shape == values[w.input[0]].shape[:1]
        assert attribute(w, "axis") == 0
        assert values[node.input[2]].dtype == (np.float16 if kind.endswith("fp16") else np.float32)


@pytest.mark.parametrize("kind", ["resnet-symmetric", "resnet-linear"])
def test_both_inputs_of_a_sum_are_quantized(for_tensorrt: ForTensorRt, kind: str) -> None:
    graph = onnx.load(for_tensorrt(kind)[1])
    made = makers(graph)
    sums = [node for node in graph.graph.node if node.op_type == "Add"]
    assert len(sums) == 3
    assert {made[name].op_type for node in sums for name in node.input} == {"DequantizeLinear"}


def test_in_fp16_only_inputs_and_outputs_are_float32(for_tensorrt: ForTensorRt) -> None:
    graph = onnx.load(for_tensorrt("resnet-fp16")[1])
    inferred = onnx.shape_inference.infer_shapes(graph).graph
    outer = [*inferred.input, *inferred.output]
    assert {value.type.tensor_type.elem_type for value in outer} == {TensorProto.FLOAT}
    kinds = {value.type.tensor_type.elem_type for value in inferred.value_info}
    assert TensorProto.FLOAT16 in kinds
    assert TensorProto.FLOAT not in kinds
    assert TensorProto.FLOAT not in {tensor.data_type for tensor in graph.graph.initializer}


@pytest.mark.parametrize(
    ("kind", "tolerance"),
    [("resnet-symmetric", 0.03), ("resnet-linear", 0.05), ("resnet-fp16", 0.05), ("cnn-linear", 0.05)],
)
@torch.no_grad()
def test_onnx_runtime_answers_like_torch(
    for_tensorrt: ForTensorRt, answer: Answer, images: Tensor, kind: str, tolerance: float
) -> None:
    model, path = for_tensorrt(kind)
    expected = model(images).numpy()
    found = answer(onnx.load(path), images.numpy())
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()
    assert (found.argmax(1) == expected.argmax(1)).mean() >= 0.95


@pytest.mark.parametrize("kind", KINDS)
def test_lint_finds_nothing(for_tensorrt: ForTensorRt, kind: str) -> None:
    assert lint(for_tensorrt(kind)[1], "tensorrt") == []


@pytest.fixture(scope="module")
def padded(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    """A quantized model whose second convolution reads unevenly padded images, and its onnx-trt file."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 8, 3), nn.ReLU(), nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(8, 8, 3, stride=2), nn.ReLU()]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)).eval()
    rows = [({"image": torch.rand(32, 1, 8, 8)}, torch.zeros(32))]
    nothing: Any = None
    context = Context(nothing, nothing, nothing, nothing, Decisions(None, {}), where="here")
    model, _ = compress(Linear(), net, lambda: rows, context)
    folder = tmp_path_factory.mktemp("padded")
    OnnxTrt()(model.eval(), Digits().signature(), folder, {})
    return model, folder / "model.trt.onnx"


@torch.no_grad()
def test_uneven_padding_belongs_to_its_convolution(padded: tuple[nn.Module, Path], answer: Answer) -> None:
    model, path = padded
    graph, x = onnx.load(path), torch.rand(8, 1, 8, 8)
    assert counts(graph)["Pad"] == 0
    expected = model(x).numpy()
    np.testing.assert_allclose(answer(graph, x.numpy()), expected, atol=0.03 * np.abs(expected).max())


@pytest.mark.tensorrt
def test_the_real_parser_accepts_uneven_padding(padded: tuple[nn.Module, Path]) -> None:
    parsed = engines.Parsed(padded[1].read_bytes())
    assert parsed.errors == []
    assert len(parsed.build({"image": ((1, 1, 8, 8), (8, 1, 8, 8), (32, 1, 8, 8))}, [86])) > 100_000


@pytest.mark.tensorrt
@pytest.mark.parametrize("kind", KINDS)
def test_the_real_parser_accepts_it_and_an_engine_is_built(for_tensorrt: ForTensorRt, kind: str) -> None:
    parsed = engines.Parsed(for_tensorrt(kind)[1].read_bytes())
    assert parsed.errors == []
    profile = {"image": ((1, 1, 8, 8), (8, 1, 8, 8), (32, 1, 8, 8))}
    assert len(parsed.build(profile, [80, 86, 89, 120])) > 100_000
