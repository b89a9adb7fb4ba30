"""Small ONNX models, each wrong in one way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

node = helper.make_node
SIGNED, SCALE = np.int8(0), np.float32(0.05)
IMAGE = ("batch", 8, 8, 8)


def model(
    nodes: Sequence[Any],
    constants: Mapping[str, Any],
    *,
    inputs: Mapping[str, Sequence[int | str]] | None = None,
    output: int = TensorProto.FLOAT,
) -> Any:
    """Return a model from ``inputs`` (x, 8×8 images of 8 channels) to y."""
    graph = helper.make_graph(
        nodes,
        "tested",
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in (inputs or {"x": IMAGE}).items()
        ],
        [helper.make_tensor_value_info("y", output, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def pair(x: str, y: str, scale: str = "s", zero: str = "z", **axis: int) -> list[Any]:
    """Return QuantizeLinear and DequantizeLinear from ``x`` to ``y``."""
    return [
        node("QuantizeLinear", [x, scale, zero], [f"{y}.q"], **axis),
        node("DequantizeLinear", [f"{y}.q", scale, zero], [y], **axis),
    ]


def convolution(
    *,
    zero: Any = SIGNED,
    scale: Any = SCALE,
    weight: Any = None,
    weight_zero: Any = None,
    weight_axis: int = 0,
    channels: int = 8,
    quantized: bool = True,
    activation_axis: int | None = None,
    bias: str = "float",
    bias_scale: float = 0.05 * 0.01,
    after: str = "quantize",
) -> Any:
    """Return a model of one 3×3 convolution with Q/DQ, good unless told otherwise.

    ``bias``: float, int32 or none; ``after``: quantize, relu (then quantize), or nothing.
    """
    axis = {} if activation_axis is None else {"axis": activation_axis}
    constants = {
        "s": SCALE,
        "z": zero if np.ndim(zero) == 0 else zero.dtype.type(0),
        "xs": scale,
        "xz": zero,
        "w": np.ones((channels, 8, 3, 3), np.int8) if weight is None else weight,
        "ws": np.full(channels, 0.01, np.float32),
        "wz": np.zeros(channels, np.int8) if weight_zero is None else weight_zero,
        "b": np.ones(channels, np.float32),
    }
    nodes = pair("x", "xd", "xs", "xz", **axis) if quantized else [node("Identity", ["x"], ["xd"])]
    nodes.append(node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=weight_axis))
    if bias == "int32":
        constants |= {"bq": np.ones(channels, np.int32), "bz": np.zeros(channels, np.int32)}
        constants["bs"] = np.full(channels, bias_scale, np.float32)
        nodes.append(node("DequantizeLinear", ["bq", "bs", "bz"], ["b"], axis=0))
        del constants["b"]
    nodes.append(node("Conv", ["xd", "wd", *(["b"] if bias != "none" else [])], ["c"], pads=[1, 1, 1, 1]))
    if after == "relu":
        nodes.append(node("Relu", ["c"], ["r"]))
    if after == "nothing":
        nodes.append(node("Identity", ["c"], ["y"]))
    else:
        nodes += pair("r" if after == "relu" else "c", "y")
    return model(nodes, constants)


def residual(*, quantized: Sequence[str] = ("a", "b"), zero: Any = SIGNED) -> Any:
    """Return the sum of two inputs, those in ``quantized`` through Q/DQ."""
    nodes = [each for name in quantized for each in pair(name, f"{name}.d")]
    names = [f"{name}.d" if name in quantized else name for name in ("a", "b")]
    nodes += [node("Add", names, ["sum"]), *pair("sum", "y")]
    return model(nodes, {"s": SCALE, "z": zero}, inputs={"a": IMAGE, "b": IMAGE})
