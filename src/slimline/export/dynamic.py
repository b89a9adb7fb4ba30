"""Graph pass for inputs whose range is found as the model runs: integer products behind DynamicQuantizeLinear.

    x_q, s_x, z_x = DynamicQuantizeLinear(x)        y = (x_q − z_x)·W_q · (s_x·s_w) + b

Runtimes fuse DynamicQuantizeLinear → MatMulInteger → Cast → Mul (→ Add) into one kernel. A dynamic quantizer is
exported as a node of our own (domain ``slimline``). Where the product can't run in integers (weights narrower than 8
bits, in blocks, or in floating point), the input is rounded all the same and unpacked again.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from onnx import TensorProto, helper

from slimline.export.graph import DOMAIN, Graph

NAME = "DynamicQuantize"


class _Input(NamedTuple):
    """A tensor that is rounded as it comes: its integers, scale and zero point by name."""

    integers: str
    scale: str
    zero_point: str


class _Weight(NamedTuple):
    """int8 weights [in, out] and their scales, [out] or one."""

    integers: Any
    scale: Any


def integers(graph: Graph) -> None:
    """Replace our nodes by DynamicQuantizeLinear, one a tensor, and the products that read them by integer ones."""
    makers = graph.producer()
    inputs: dict[str, _Input] = {}  # by the tensor that is rounded
    rounded: dict[str, _Input] = {}  # by the name under which its readers know it
    restored: dict[str, str] = {}
    nodes: list[Any] = []
    for node in graph.nodes:
        if is_dynamic(node):
            nodes += _quantized(node, inputs)
            rounded[node.output[0]] = inputs[node.input[0]]
            continue
        weight = (
            _weight(graph, node, makers) if node.op_type in {"MatMul", "Gemm"} and node.input[0] in rounded else None
        )
        if weight is not None:
            nodes += _product(graph, node, rounded[node.input[0]], weight)
            continue
        for index, name in enumerate(node.input):
            if name in rounded:
                if name not in restored:
                    restored[name] = f"{name}.restored"
                    nodes.append(helper.make_node("DequantizeLinear", [*rounded[name]], [restored[name]]))
                node.input[index] = restored[name]
        nodes.append(node)
    graph.nodes = nodes


def is_dynamic(node: Any) -> bool:
    """Return whether a node is a dynamic quantizer of ours."""
    return bool(node.domain == DOMAIN and node.op_type == NAME)


def _quantized(node: Any, inputs: dict[str, _Input]) -> list[Any]:
    x = node.input[0]
    if x in inputs:
        return []
    inputs[x] = _Input(f"{x}.q", f"{x}.scale", f"{x}.zero")
    return [helper.make_node("DynamicQuantizeLinear", [x], [*inputs[x]])]


def _weight(graph: Graph, node: Any, makers: dict[str, Any]) -> _Weight | None:
    """Return the weights of a product as int8 [in, out] where they are int8 with zero point 0, else None."""
    maker, turned = makers.get(node.input[1]), False
    if maker is not None and maker.op_type == "Transpose":
        turned, maker = True, makers.get(maker.input[0])
    if (
        maker is None
        or maker.op_type != "DequantizeLinear"
        or any(each.name == "block_size" for each in maker.attribute)
    ):
        return None
    values, scale, zero_point = (graph.constants.get(name) for name in maker.input[:3])
    if values is None or scale is None or values.dtype != np.int8 or values.ndim != 2:
        return None
    if zero_point is not None and zero_point.any():
        return None
    attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    if attributes.get("alpha", 1.0) != 1.0 or attributes.get("beta", 1.0) != 1.0 or attributes.get("transA", 0):
        return None
    if turned != bool(attributes.get("transB", 0)):
        values = values.T
    elif turned:
        return None  # turned twice: its scales would lie along the inputs
    elif scale.ndim:
        return None
    return _Weight(np.ascontiguousarray(values), scale)


def _product(graph: Graph, node: Any, x: _Input, weight: _Weight) -> list[Any]:
    out = node.output[0]
    name = graph.constant(f"{node.input[1]}.product", weight.integers)
    scale = graph.constant(f"{node.input[1]}.product_scale", weight.scale)
    zero = graph.constant("zero_point_int8", np.zeros((), np.int8))
    biased = len(node.input) > 2 and bool(node.input[2])
    end = f"{out}.product" if biased else out
    made = [
        helper.make_node("MatMulInteger", [x.integers, name, x.zero_point, zero], [f"{out}.sums"]),
        helper.make_node("Cast", [f"{out}.sums"], [f"{out}.float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [x.scale, scale], [f"{out}.unit"]),
        helper.make_node("Mul", [f"{out}.float", f"{out}.unit"], [end]),
    ]
    if biased:
        made.append(helper.make_node("Add", [end, node.input[2]], [out]))
    return made
