"""Every width from 2 to 16 bits: real integers in the file, and the same answers in ONNX Runtime as in torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from torch import Tensor, nn

from slimline.export.onnx import to_onnx
from slimline.method import Batches, Context, compress
from slimline.methods.linear import Linear
from slimline.methods.symmetric import Symmetric
from slimline.models.cnn import Cnn
from slimline.models.resnet import ResNet
from slimline.quantization.calibration import calibrate
from slimline.quantization.grids import Spec, container
from slimline.quantization.observers import MinMax
from slimline.quantization.quantizers import QuantizedConv2d, QuantizedLinear, quantize_layer
from slimline.tasks.digits import Digits

Answer = Callable[[Any, NDArray[np.float32]], NDArray[np.float32]]
Made = Callable[..., Context]
TYPES = {
    "symmetric": {2: TensorProto.INT2, 4: TensorProto.INT4, 8: TensorProto.INT8, 16: TensorProto.INT16},
    "linear": {2: TensorProto.UINT2, 4: TensorProto.UINT4, 8: TensorProto.UINT8, 16: TensorProto.UINT16},
}


def weights(graph: Any) -> dict[str, Any]:
    """Return the tensors that a DequantizeLinear reads and that have two axes or more."""
    read = {node.input[0] for node in graph.graph.node if node.op_type == "DequantizeLinear"}
    return {each.name: each for each in graph.graph.initializer if each.name in read and len(each.dims) > 1}


def off(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    return float(np.abs(found - expected).max() / np.ptp(expected))


def signature(inputs: int, outputs: int) -> dict[str, Any]:
    return {
        "inputs": [{"name": "x", "dtype": "float32", "shape": ["batch", inputs]}],
        "outputs": [{"name": "y", "dtype": "float32", "shape": ["batch", outputs]}],
    }


METHODS: list[Any] = [
    *(pytest.param(Symmetric(bits=bits), id=f"symmetric {bits}") for bits in range(2, 17)),
    *(pytest.param(Linear(bits=bits, weights="linear"), id=f"linear {bits}") for bits in range(2, 17)),
    pytest.param(Linear(weight_bits=4), id="4 and 8"),
    pytest.param(Symmetric(weight_bits=3, activation_bits=11), id="3 and 11"),
    pytest.param(Linear(weight_bits=8, activation_bits=4), id="8 and 4"),
    pytest.param(Symmetric(weight_bits=2, activation_bits=32), id="2-bit weights alone"),
    pytest.param(Linear(weight_bits=4, granularity="tensor"), id="4-bit weights per tensor"),
    pytest.param(Linear(weights="linear", granularity="channel"), id="affine weights per channel"),
]


@pytest.mark.parametrize("method", METHODS)
@torch.no_grad()
def test_the_runtime_answers_like_the_fake_quantizers(
    cnn: Cnn, task: Digits, batches: Batches, context: Made, answer: Answer, images: Tensor, method: Any
) -> None:
    model, _ = compress(method, cnn, batches, context())
    expected = model.eval()(images).numpy()
    graph = to_onnx(model, task.signature())
    integers = 5 <= (method.weight_bits or method.bits) <= 8  # their biases are rounded to int32
    assert off(answer(graph, images.numpy()), expected) < (0.05 if integers else 0.005)
    assert off(expected, cnn(images).numpy()) > 1e-5, "something was rounded"
    scheme, bits = method.schemes()[0], container(method.weight_bits or method.bits)
    if bits == 2 and method.activation_bits is None:
        bits = 4  # see export.widths.fold_weights
    layers = [m for m in model.modules() if isinstance(m, QuantizedConv2d | QuantizedLinear)]
    found = list(weights(graph).values())
    assert {each.data_type for each in found} == {TYPES[scheme][bits]}
    assert sum(len(each.raw_data) for each in found) == sum(m.weight.numel() for m in layers) * bits // 8


@pytest.mark.parametrize("bits", [3, 4, 7, 8, 11, 16])
@torch.no_grad()
def test_weights_in_the_file_are_the_fake_quantized_ones(
    cnn: Cnn, task: Digits, batches: Batches, context: Made, bits: int
) -> None:
    model, _ = compress(Linear(weight_bits=bits), cnn, batches, context())
    graph = to_onnx(model, task.signature())
    constants = {each.name: numpy_helper.to_array(each) for each in graph.graph.initializer}
    readers = [node for node in graph.graph.node if node.op_type == "DequantizeLinear"]
    found = [
        constants[node.input[0]].astype(np.float64) * shaped(constants[node.input[1]], constants[node.input[0]].ndim)
        for node in readers
        if node.input[0] in weights(graph)
    ]
    layers = [m for m in model.modules() if isinstance(m, QuantizedConv2d | QuantizedLinear)]
    for layer, restored in zip(layers, found, strict=True):
        np.testing.assert_allclose(restored, layer.weight_quantizer(layer.weight).numpy(), rtol=1e-4, atol=1e-6)


def shaped(scale: NDArray[Any], ndim: int) -> NDArray[Any]:
    return scale.astype(np.float64).reshape(-1, *[1] * (ndim - 1)) if scale.ndim else scale.astype(np.float64)


@pytest.mark.parametrize(
    ("bits", "scheme"),
    [(2, "symmetric"), (2, "linear"), (5, "linear"), (7, "symmetric"), (9, "symmetric"), (15, "linear")],
)
@torch.no_grad()
def test_activations_are_clipped_to_their_own_grid(answer: Answer, bits: int, scheme: Any) -> None:
    """The grid is narrower than the integers that hold it, and the rows reach beyond it on both sides."""
    pool = quantize_layer(nn.AdaptiveAvgPool2d(1), Spec(), Spec(bits, scheme))
    model = nn.Sequential(pool, nn.Flatten()).eval()
    x = torch.linspace(-1, 2, 60).reshape(60, 1, 1, 1)

    def run() -> None:
        model(x)

    calibrate(model, run, MinMax)
    form = signature(1, 1)
    form["inputs"][0]["shape"] = ["batch", 1, 1, 1]
    far = 3 * x
    found, expected = answer(to_onnx(model, form), far.numpy()), model(far).numpy()
    assert np.ptp(expected) == pytest.approx(4 if scheme == "symmetric" else 3, rel=0.34)
    assert off(found, expected) < 1e-4


def optimized(model: Any, tmp_path: Path) -> list[str]:
    """Return the operators that ONNX Runtime runs a model as."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]


@pytest.mark.parametrize(
    ("bits", "scheme", "inputs", "bias"),
    [(4, "symmetric", 96, True), (4, "linear", 80, False), (8, "symmetric", 96, True), (2, "symmetric", 64, True)],
)
@torch.no_grad()
def test_linear_weights_in_blocks_run_as_matmul_of_few_bits(
    answer: Answer, tmp_path: Path, bits: int, scheme: Any, inputs: int, bias: bool
) -> None:
    """ONNX Runtime rounds the inputs of MatMulNBits to 8 bits itself, so the last digits differ."""
    layer = nn.Linear(inputs, 24, bias=bias)
    linear = quantize_layer(layer, Spec(bits, scheme, axis=0, block=32), None).eval()
    linear.weight_quantizer.fit(layer.weight)  # type: ignore[operator, union-attr]
    graph = to_onnx(linear, signature(inputs, 24))
    (stored,) = weights(graph).values()
    assert stored.data_type == TYPES[scheme][bits]
    assert "MatMulNBits" in optimized(graph, tmp_path)
    x = torch.randn(8, inputs)
    assert off(answer(graph, x.numpy()), linear(x).numpy()) < 0.01


@pytest.mark.parametrize(("bits", "scheme", "activation"), [(4, "symmetric", Spec(8, "linear")), (3, "linear", None)])
@torch.no_grad()
def test_convolution_weights_in_blocks(answer: Answer, images: Tensor, bits: int, scheme: Any, activation: Any) -> None:
    conv = nn.Conv2d(20, 6, 3)
    layer = quantize_layer(conv, Spec(bits, scheme, axis=0, block=8), activation)
    model = nn.Sequential(nn.Conv2d(1, 20, 1), nn.ReLU(), layer, nn.Flatten()).eval()

    def run() -> None:
        model(images)

    calibrate(model, run, MinMax)
    form = signature(1, 6 * 36)
    form["inputs"][0]["shape"] = ["batch", 1, 8, 8]
    graph = to_onnx(model, form)
    assert off(answer(graph, images.numpy()), model(images).numpy()) < 1e-3
    (stored,) = (each for each in weights(graph).values() if list(each.dims) == [6, 20, 3, 3])
    assert stored.data_type == TYPES[scheme][4]


@pytest.mark.parametrize(("weight_bits", "fused"), [(8, True), (5, True), (4, False), (9, False)], ids=str)
def test_what_is_not_storage_only_runs_in_integers(
    resnet: ResNet, task: Digits, batches: Batches, context: Made, tmp_path: Path, weight_bits: int, fused: bool
) -> None:
    model, plan = compress(Linear(weight_bits=weight_bits), resnet, batches, context())
    kernels = optimized(to_onnx(model, task.signature()), tmp_path)
    assert ("QLinearConv" in kernels) == fused
    assert (not any(note.startswith("storage only") for note in plan.notes)) == fused


@torch.no_grad()
def test_many_zero_points_of_blocks_are_constants_too(answer: Answer) -> None:
    """The exporter folds no Cast of more than 1024 values, so zero points come to it as the file holds them."""
    layer = nn.Linear(512, 64)
    linear = quantize_layer(layer, Spec(4, "linear", axis=0, block=16), None).eval()
    linear.weight_quantizer.fit(layer.weight)  # type: ignore[operator, union-attr]
    assert linear.weight_quantizer.zero_point.numel() > 1024  # type: ignore[union-attr, operator]
    graph = to_onnx(linear, signature(512, 64))
    x = torch.randn(4, 512)
    assert off(answer(graph, x.numpy()), linear(x).numpy()) < 0.02
