"""Rules for ONNX Runtime on CPUs: where its integer kernels don't fit, so that a layer runs in floats between casts.

A convolution becomes an integer kernel only as DequantizeLinear → Conv → QuantizeLinear (seen in ONNX Runtime 1.24's
optimized graphs); with a DequantizeLinear but no kernel it is slower than a plain float layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from slimline.errors import ArtifactError
from slimline.export.graph import attribute
from slimline.lint.finding import Finding
from slimline.lint.graph import Graph
from slimline.runtimes.onnxruntime import OnnxRuntime

LAYERS = ("Conv", "Gemm", "MatMul")
BLOCK = 8


def findings(graph: Graph) -> Iterator[Finding]:
    """Yield what every rule finds, then what ONNX Runtime says when it can't load the model."""
    known = [found for rule in RULES for found in rule(graph)]
    yield from known
    if not any(each.effect == "rejected" for each in known):
        yield from _session(graph)


def float_layer(graph: Graph) -> Iterator[Finding]:
    """In an integer network every layer has an integer input."""
    if not graph.of("QuantizeLinear"):
        return
    for node in graph.of(*LAYERS):
        if graph.maker(node.input[0], "DequantizeLinear") is None:
            saw = "its input is float, in a model with integer layers"
            yield Finding("float-layer", graph.place(node), saw, "quantize it, unless you measured it slower", "slow")


def float_output(graph: Graph) -> Iterator[Finding]:
    """A convolution with integer inputs is followed by QuantizeLinear, or it runs in floats."""
    for node in graph.of("Conv"):
        if graph.maker(node.input[0], "DequantizeLinear") is None:
            continue
        after = [reader.op_type for reader in _past_relu(graph, node)]
        if set(after) != {"QuantizeLinear"}:
            saw = f"integers in, but {after[0] if after else 'an output'} reads its floats"
            yield Finding("float-output", graph.place(node), saw, "quantize the tensor after it", "slow")


def bias_scale(graph: Graph) -> Iterator[Finding]:
    """An int32 bias is added to the sums of products, so its scale is s_x · s_w."""
    for node in graph.of("Conv", "Gemm"):
        made = [graph.maker(graph.input(node, index), "DequantizeLinear") for index in range(3)]
        scales = [
            graph.constants[each.input[1]] for each in made if each is not None and each.input[1] in graph.constants
        ]
        if len(scales) < 3:
            continue
        x, w, bias = scales
        if not np.allclose(bias, x * w, rtol=1e-3, atol=0):
            change = "store it on the scale of input times weight, or export the format onnx"
            yield Finding("bias-scale", graph.place(node), "a bias on a scale of its own", change, "slow")


def relu(graph: Graph) -> Iterator[Finding]:
    """A Relu goes away where the quantizer after it clips at 0 itself: where its zero point is the lowest value."""
    for node in graph.of("QuantizeLinear"):
        before, zero = graph.maker(node.input[0], "Relu"), graph.zero_point(node)
        if before is None or zero is None or np.all(zero == np.iinfo(zero.dtype).min):
            continue
        if graph.maker(before.input[0], "Conv") is not None:
            saw = f"a Relu before {zero.dtype} with zero point {zero.ravel()[0]} keeps the convolution in floats"
            change = "quantize by linear (uint8, zero point 0), or export the format onnx"
            yield Finding("relu", graph.place(before), saw, change, "slow")


def residual(graph: Graph) -> Iterator[Finding]:
    """An integer sum has both inputs quantized."""
    for node in graph.of("Add"):
        kinds = [graph.maker(name, "DequantizeLinear") is not None for name in node.input]
        if any(kinds) and not all(kinds) and not any(name in graph.constants for name in node.input):
            saw = f"a sum whose input {node.input[kinds.index(False)]!r} is not quantized"
            yield Finding("residual", graph.place(node), saw, "put Q/DQ on both inputs of the sum", "slow")


def channel_activation(graph: Graph) -> Iterator[Finding]:
    """Activations have one scale; a convolution that reads more fails when it runs."""
    for node in graph.of("QuantizeLinear"):
        found = graph.constants.get(node.input[1])
        if found is not None and found.size > 1 and node.input[0] not in graph.constants:
            saw, change = f"{found.size} scales on an activation", "quantize activations per tensor"
            yield Finding("channel-activation", graph.place(node), saw, change, "rejected")


def dynamic(graph: Graph) -> Iterator[Finding]:
    """No convolution on ranges taken while it runs: each input is scanned first, each output made float again."""
    for node in graph.of("ConvInteger"):
        change = "quantize with calibrated ranges (the methods linear, symmetric)"
        yield Finding("dynamic", graph.place(node), "a dynamically quantized convolution", change, "slow")


def width(graph: Graph) -> Iterator[Finding]:
    """Kernels work on blocks of 8 channels (16 with AVX-512): the rest of a block is padding."""
    for node in graph.of("Conv"):
        weight = graph.input(node, 1)
        maker = graph.maker(weight, "DequantizeLinear")
        shape = graph.constants.get(maker.input[0] if maker is not None else weight, np.empty(0)).shape
        if shape and shape[0] % BLOCK and attribute(node, "group", 1) == 1:
            saw, change = (
                f"{shape[0]} output channels",
                f"prune to a multiple of {BLOCK} (structured: multiple: {BLOCK})",
            )
            yield Finding("width", graph.place(node), saw, change, "slow")


def _past_relu(graph: Graph, node: Any) -> list[Any]:
    """Return who reads a node's output, looking through a Relu."""
    readers = graph.readers[node.output[0]]
    return [
        each for reader in readers for each in (_past_relu(graph, reader) if reader.op_type == "Relu" else [reader])
    ]


def _session(graph: Graph) -> Iterator[Finding]:
    try:
        OnnxRuntime(graph.path.parent, 1, graph.path.name).close()
    except ArtifactError as error:
        message = str(error).partition("can't load it: ")[2]
        yield Finding("session", "the model", message, "change what ONNX Runtime names", "rejected")


RULES: tuple[Callable[[Graph], Iterator[Finding]], ...] = (
    float_layer, float_output, bias_scale, relu, residual, channel_activation, dynamic, width,
)  # fmt: skip
