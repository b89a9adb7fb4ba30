from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from slimline.decisions import Decisions
from slimline.export import padding
from slimline.export.graph import Graph
from slimline.export.onnx import to_onnx
from slimline.method import Batch, Context, compress
from slimline.methods.linear import Linear
from slimline.models.efficientnet_lite import Block
from slimline.params import Target
from slimline.task import Split
from slimline.tasks.labelled_images import images
from tests.graphs import counts


def padded(widths: list[int], value: float = 0.0, mode: str = "constant", *, read_twice: bool = False) -> Any:
    """Return an ONNX model of a Pad and a convolution with padding of its own."""
    chance = np.random.default_rng(0)
    channels = 2 + widths[1] + widths[5]
    constants = {
        "widths": np.array(widths, np.int64),
        "value": np.array(value, np.float32),
        "w": chance.normal(size=(3, channels, 3, 3)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Pad", ["x", "widths", "value"], ["padded"], mode=mode),
        helper.make_node("Conv", ["padded", "w"], ["y"], pads=[1, 0, 0, 0], strides=[2, 2]),
    ]
    outputs = ["y", "padded"] if read_twice else ["y"]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 2, 9, 9])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(each, name) for name, each in constants.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def answers(model: Any, x: np.ndarray) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    found: list[np.ndarray] = onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, {"x": x})
    return found


def folded(model: Any) -> Any:
    graph = Graph(onnx.ModelProto.FromString(model.SerializeToString()))
    padding.fold(graph)
    return graph.finish()


@pytest.mark.parametrize("widths", [[0, 0, 0, 0, 0, 0, 1, 1], [0, 0, 2, 1, 0, 0, 0, 3]])
def test_zeros_become_the_convolutions_own(widths: list[int]) -> None:
    model = padded(widths)
    found = folded(model)
    assert counts(found) == {"Conv": 1}
    x = np.random.default_rng(1).normal(size=(2, 2, 9, 9)).astype(np.float32)
    np.testing.assert_allclose(answers(found, x)[0], answers(model, x)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"widths": [0, 0, 0, 0, 0, 0, 1, 1], "value": 1.0},
        {"widths": [0, 0, 1, 1, 0, 0, 1, 1], "mode": "reflect"},
        {"widths": [0, 1, 0, 0, 0, 0, 1, 1]},
        {"widths": [0, 0, -1, 0, 0, 0, 1, 1]},
        {"widths": [0, 0, 0, 0, 0, 0, 1, 1], "read_twice": True},
    ],
    ids=["ones", "reflected", "channels", "cropped", "read-twice"],
)
def test_what_is_more_than_zeros_stays(settings: dict[str, Any]) -> None:
    model = padded(**settings)
    found = folded(model)
    assert counts(found) == {"Pad": 1, "Conv": 1}
    x = np.random.default_rng(1).normal(size=(2, 2, 9, 9)).astype(np.float32)
    for before, after in zip(answers(model, x), answers(found, x), strict=True):
        np.testing.assert_array_equal(before, after)


def test_a_strided_depthwise_layer_runs_in_integers(tmp_path: Path) -> None:
    """EfficientNet's uneven padding stood between ReLU6 and quantizer, and kept three kernels in floats."""
    torch.manual_seed(0)
    blocks = Block(3, 8, 3, 1, 6, 0.1), Block(8, 8, 5, 2, 6, 0.1)
    model: nn.Module = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 8)).eval()
    task = images(data="unread", labels=[str(number) for number in range(8)], size=[16, 16])
    x = np.random.default_rng(0).normal(size=(16, 3, 16, 16)).astype(np.float32)
    rows = Split({"image": x}, np.arange(16) % 8)

    def batches() -> Iterator[Batch]:
        yield {"image": torch.from_numpy(x)}, torch.from_numpy(rows.targets)

    quantized, _ = compress(Linear(), model, batches, Context(task, rows, rows, Target(), Decisions(None, {})))
    graph = to_onnx(quantized, task.signature())
    assert counts(graph)["Pad"] == 0
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options)
    kernels = counts(onnx.load(options.optimized_model_filepath))
    assert kernels["QLinearConv"] == 6
    assert not {"Conv", "FusedConv", "Pad"} & set(kernels)
    with torch.inference_mode():
        expected = quantized(torch.from_numpy(x)).numpy()
    (found,) = session.run(None, {"image": x})
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()
