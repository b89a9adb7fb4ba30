from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import nn

from slimline.export import qdq
from slimline.export.graph import Graph
from slimline.export.onnx import OPSET, to_onnx
from slimline.methods.symmetric import Symmetric
from slimline.quantization.calibration import calibrate
from slimline.quantization.grids import Spec
from slimline.quantization.observers import MinMax
from slimline.quantization.quantizers import QuantizedConv2d, quantize_layer
from slimline.tasks.digits import Digits
from slimline.testing import check_method
from tests.graphs import counts

Exported = Callable[[str], tuple[nn.Module, Any]]
Answer = Callable[[Any, NDArray[np.float32]], NDArray[np.float32]]
KINDS = ["symmetric", "linear"]


def constants(model: Any) -> dict[str, NDArray[Any]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def makers(model: Any) -> dict[str, Any]:
    return {output: node for node in model.graph.node for output in node.output}


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_is_int8_and_every_bias_int32(exported: Exported, kind: str) -> None:
    _, graph = exported(kind)
    values, made = constants(graph), makers(graph)
    layers = [node for node in graph.graph.node if node.op_type in {"Conv", "Gemm"}]
    assert len(layers) == 10
    for node in layers:
        x, w, bias = (made[name] for name in node.input)
        assert {x.op_type, w.op_type, bias.op_type} == {"DequantizeLinear"}
        assert values[w.input[0]].dtype == np.int8
        assert values[bias.input[0]].dtype == np.int32
        assert (values[bias.input[2]] == 0).all()
        np.testing.assert_allclose(values[bias.input[1]], values[x.input[1]] * values[w.input[1]], rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_no_float_weight_is_left(exported: Exported, kind: str) -> None:
    _, graph = exported(kind)
    floats = [value for value in constants(graph).values() if value.dtype == np.float32]
    assert max(value.ndim for value in floats) <= 1, "scales alone"


@pytest.mark.parametrize("kind", KINDS)
def test_each_tensor_is_quantized_once(exported: Exported, kind: str) -> None:
    """At most a pair each for conv, fc, pool, a block's two convolutions, two shortcuts, and both sides of a sum."""
    _, graph = exported(kind)
    kinds = counts(graph)
    values = constants(graph)
    activations = [node for node in graph.graph.node if node.op_type == "QuantizeLinear"]
    assert all(node.input[0] not in values for node in activations), "weights are integers already"
    grids = {(node.input[0], node.input[1], node.input[2]) for node in activations}
    assert len(grids) == len(activations)
    assert kinds["QuantizeLinear"] <= 1 + 1 + 1 + 6 + 2 + 6
    assert kinds["DequantizeLinear"] == kinds["QuantizeLinear"] + 2 * 10
    assert kinds["BatchNormalization"] == kinds["Identity"] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_activations_are_uint8(exported: Exported, kind: str) -> None:
    _, graph = exported(kind)
    values = constants(graph)
    for node in graph.graph.node:
        if node.op_type == "QuantizeLinear":
            assert values[node.input[2]].dtype == np.uint8
            assert kind == "linear" or values[node.input[2]] == 128


@pytest.mark.parametrize("kind", ["float", *KINDS])
def test_pool_and_flatten_are_written_as_such(exported: Exported, kind: str) -> None:
    kinds = counts(exported(kind)[1])
    assert kinds["GlobalAveragePool"] == 1
    assert kinds["Flatten"] == 1
    assert kinds["Reshape"] == kinds["ReduceMean"] == 0


def test_integers_are_the_torch_models(exported: Exported) -> None:
    """The int8 weights of the file times their scale are the weights that the fake-quantizer makes."""
    model, graph = exported("linear")
    values, made = constants(graph), makers(graph)
    conv = model.get_submodule("conv")
    assert isinstance(conv, QuantizedConv2d)
    expected = conv.weight_quantizer(conv.weight).detach().numpy()
    first = next(node for node in graph.graph.node if node.op_type == "Conv")
    w = made[first.input[1]]
    found = values[w.input[0]] * values[w.input[1]].reshape(-1, 1, 1, 1)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_constants_are_shared_and_names_short(exported: Exported) -> None:
    _, graph = exported("linear")
    values = list(constants(graph).items())
    keys = [(value.dtype.str, value.shape, value.tobytes()) for _, value in values]
    assert len(set(keys)) == len(keys)
    assert all(len(name) <= 3 for name, _ in values)
    assert all(not node.doc_string and not node.name and not node.metadata_props for node in graph.graph.node)


@pytest.mark.parametrize("dead", [1e-3, 1e-6, 1e-12, 1e-30], ids=str)
@pytest.mark.parametrize("scheme", KINDS)
@torch.no_grad()
def test_a_bias_beside_dying_weights_keeps_its_value(answer: Answer, dead: float, scheme: Any) -> None:
    """Regression: on the grid s_x · s_w of a channel whose weights are next to nothing the bias overflowed int32."""
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 4, 3, padding=1)
    conv.weight[1] *= dead
    conv.get_parameter("bias").copy_(torch.tensor([0.5, 1.0, -0.5, 0.2]))
    spec = Spec(8, scheme)
    pool = quantize_layer(nn.AdaptiveAvgPool2d(1), spec, spec)
    model = nn.Sequential(quantize_layer(conv, Spec(8, "symmetric", 0), spec), nn.ReLU(), pool, nn.Flatten()).eval()
    x = torch.rand(2, 3, 8, 8)

    def run() -> None:
        model(x)

    calibrate(model, run, MinMax)
    signature = {
        "inputs": [{"name": "x", "dtype": "float32", "shape": ["batch", 3, 8, 8]}],
        "outputs": [{"name": "y", "dtype": "float32", "shape": ["batch", 4]}],
    }
    np.testing.assert_allclose(answer(to_onnx(model, signature), x.numpy()), model(x).numpy(), atol=0.01)


@torch.no_grad()
def test_a_bias_beside_no_weight_at_all_keeps_its_value(answer: Answer) -> None:
    """Regression: the scale of a channel that pruning emptied means nothing, and its bias was rounded to it."""
    torch.manual_seed(0)
    layer = nn.Linear(8, 3)
    layer.weight[1] = 0
    layer.get_parameter("bias").copy_(torch.tensor([0.3, 0.123, -0.2]))
    model = nn.Sequential(quantize_layer(layer, Spec(8, "symmetric", 0), Spec(8, "linear"))).eval()
    x = 100 * torch.randn(64, 8)

    def run() -> None:
        model(x)

    calibrate(model, run, MinMax)
    signature = {
        "inputs": [{"name": "x", "dtype": "float32", "shape": ["batch", 8]}],
        "outputs": [{"name": "y", "dtype": "float32", "shape": ["batch", 3]}],
    }
    np.testing.assert_allclose(answer(to_onnx(model, signature), x.numpy())[:, 1], 0.123, atol=1e-4)


@torch.no_grad()
def test_a_shifted_activation_behind_a_relu_still_clips(answer: Answer) -> None:
    """The grid of int8 stored as uint8 goes on below zero: without the Clip negative sums would pass the ReLU."""
    torch.manual_seed(0)
    first, second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
    first.get_parameter("bias").copy_(torch.linspace(-1.0, 1.0, 8))  # channels below zero, about it and above
    spec = Spec(8, "symmetric")
    quantized = (quantize_layer(layer, Spec(8, "symmetric", 0), spec) for layer in (first, second))
    pool = quantize_layer(nn.AdaptiveAvgPool2d(1), spec, spec)
    a, b = quantized
    model = nn.Sequential(a, nn.ReLU(), b, nn.ReLU(), pool, nn.Flatten()).eval()
    x = torch.randn(64, 3, 8, 8)

    def run() -> None:
        model(x)

    calibrate(model, run, MinMax)
    signature = {
        "inputs": [{"name": "x", "dtype": "float32", "shape": ["batch", 3, 8, 8]}],
        "outputs": [{"name": "y", "dtype": "float32", "shape": ["batch", 8]}],
    }
    graph = to_onnx(model, signature)
    kinds = counts(graph)
    assert (kinds["Relu"], kinds["Clip"]) == (0, 2), "both ReLUs are integers' business"
    values = constants(graph)
    points = [values[node.input[2]] for node in graph.graph.node if node.op_type == "QuantizeLinear"]
    assert [(point.dtype, int(point)) for point in points] == [(np.uint8, 128)] * 3
    below = nn.Sequential(a, b)(x)
    assert (a(x) < 0).float().mean() > 0.3
    assert (below < 0).any()
    outside = 3 * x  # beyond what the ranges were set on: the top of the grid holds too
    for rows in (x, outside):
        expected = model(rows).numpy()
        step = float(pool.get_submodule("input_quantizer").scale)
        np.testing.assert_allclose(answer(graph, rows.numpy()), expected, atol=2 * step)
        assert np.abs(expected - nn.Sequential(a, b, pool, nn.Flatten())(rows).numpy()).max() > 10 * step, "it matters"


def test_layers_whose_biases_are_equal_keep_a_scale_each(task: Digits) -> None:
    """An untrained net's biases are all zero, and torch writes equal ones once."""
    torch.manual_seed(0)
    net = task.build_model("resnet", depth=8, width=8, stem_stride=1)
    check_method(Symmetric(), net.eval(), task)


def merged(nodes: list[Any], values: dict[str, NDArray[Any]], pass_: Callable[[Graph], None]) -> tuple[Any, Any]:
    """Return a model of these nodes, from x [1, 3, 3] to y, before and after one pass."""
    ends = [helper.make_tensor_value_info(name, 1, [1, 3, 3]) for name in ("x", "y")]
    held = [numpy_helper.from_array(value, name) for name, value in values.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "g", ends[:1], ends[1:], held),
        opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10,
    )  # fmt: skip
    graph = Graph(onnx.ModelProto.FromString(model.SerializeToString()))
    pass_(graph)
    return model, graph.finish()


@pytest.mark.parametrize(("second", "kept"), [((3, 1), 2), ((3,), 1)], ids=["other shape", "same"])
def test_factors_of_the_same_bytes_and_another_shape_are_two(
    answer: Answer, second: tuple[int, ...], kept: int
) -> None:
    p = np.array([1, 2, 5], np.float32)
    nodes = [
        helper.make_node("Mul", ["x", "p"], ["a"]), helper.make_node("Mul", ["x", "q"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["y"]),
    ]  # fmt: skip
    before, after = merged(nodes, {"p": p, "q": p.reshape(second)}, qdq.share_factors)
    assert counts(after)["Mul"] == kept
    x = np.arange(9, dtype=np.float32).reshape(1, 3, 3)
    np.testing.assert_array_equal(answer(after, x), answer(before, x))


@pytest.mark.parametrize(("second", "kept"), [(np.uint8, 2), (np.int8, 1)], ids=["other type", "same"])
def test_zero_points_of_the_same_bytes_and_another_type_are_two_grids(answer: Answer, second: Any, kept: int) -> None:
    values = {"s": np.array(0.1, np.float32), "i": np.zeros((), np.int8), "j": np.zeros((), second)}
    nodes = [helper.make_node("QuantizeLinear", ["x", "s", point], [f"q{point}"]) for point in ("i", "j")]
    nodes += [helper.make_node("DequantizeLinear", [f"q{point}", "s", point], [f"d{point}"]) for point in ("i", "j")]
    before, after = merged([*nodes, helper.make_node("Add", ["di", "dj"], ["y"])], values, qdq.share_quantizers)
    assert counts(after)["QuantizeLinear"] == kept
    x = np.linspace(-15, 15, 9, dtype=np.float32).reshape(1, 3, 3)
    np.testing.assert_array_equal(answer(after, x), answer(before, x))


@pytest.mark.parametrize("channels", [True, False], ids=["a scale a channel", "one scale"])
def test_weights_are_stored_as_they_are_multiplied(answer: Answer, channels: bool) -> None:
    """Regression: ONNX Runtime transposed them as it loaded a file, which took nine times the file's size."""
    rng = np.random.default_rng(0)
    scale = rng.uniform(0.01, 0.02, 4).astype(np.float32) if channels else np.array(0.02, np.float32)
    values = {"w": rng.integers(-127, 128, (4, 3)).astype(np.int8), "s": scale, "z": np.zeros(scale.shape, np.int8)}
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["d"], **({"axis": 0} if channels else {})),
        helper.make_node("Transpose", ["d"], ["t"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "t"], ["y"]),
    ]
    before, after = merged(nodes, values, qdq.transpose_weights)
    assert counts(after) == {"DequantizeLinear": 1, "MatMul": 1}
    x = np.arange(9, dtype=np.float32).reshape(1, 3, 3)
    np.testing.assert_array_equal(answer(after, x), answer(before, x))
