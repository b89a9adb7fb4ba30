"""Graph passes for integers of other widths than 8: containers, clip ranges, scales in blocks.

A quantizer whose grid is narrower than its integer type is exported with attributes of our own (bits, qmin, qmax). Here
weights become integers of the narrowest type that holds them (2, 4, 8 or 16 bits, clipped to the grid), and activations
get a Clip. ONNX: int4 since opset 21, int2 since 25.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from onnx import helper

from slimline.quantization.grids import container

if TYPE_CHECKING:
    from slimline.export.graph import Graph

OURS = ("bits", "qmin", "qmax")
SIGNED = {2: ml_dtypes.int2, 4: ml_dtypes.int4, 8: np.int8, 16: np.int16}
UNSIGNED = {2: ml_dtypes.uint2, 4: ml_dtypes.uint4, 8: np.uint8, 16: np.uint16}
INT2_OPSET, INT2_IR = 25, 13


def pop_ours(node: Any) -> dict[str, int]:
    """Take our own attributes off a node and return them."""
    found = {each.name: int(each.i) for each in node.attribute if each.name in OURS}
    kept = [each for each in node.attribute if each.name not in OURS]
    del node.attribute[:]
    node.attribute.extend(kept)
    return found


def fold_weights(graph: Graph) -> None:
    """Replace a marked QuantizeLinear of a constant by the integers it yields, in the narrowest type.

    2 bits beside quantized activations take 4: ONNX Runtime 1.32 fuses int2 into a QLinearConv that it then refuses.
    """
    activations = any(node.op_type == "QuantizeLinear" and node.input[0] not in graph.constants for node in graph.nodes)
    folded: dict[str, tuple[str, Any]] = {}
    kept = []
    for node in graph.nodes:
        marked = any(each.name == "bits" for each in node.attribute)
        if node.op_type == "QuantizeLinear" and marked and node.input[0] in graph.constants:
            ours = pop_ours(node)
            bits = container(ours["bits"])
            if bits == 2 and activations:
                bits = 4
            kind = (SIGNED if ours["qmin"] < 0 else UNSIGNED)[bits]
            values = graph.constants[node.input[0]]
            scale, zero_point = (_spread(graph.constants[name], node, values.shape) for name in node.input[1:3])
            integers = np.clip(np.rint(values / scale) + zero_point, ours["qmin"], ours["qmax"]).astype(np.int32)
            name = f"{node.input[0]}.int"
            graph.constants[name] = integers.astype(kind)
            folded[node.output[0]] = name, kind
            continue
        if node.op_type == "DequantizeLinear" and node.input[0] in folded:
            pop_ours(node)
            node.input[0], kind = folded[node.input[0]]
            zero_point = graph.constants[node.input[2]].astype(np.int32).astype(kind)
            graph.constants[f"{node.input[0]}.zero"] = zero_point
            node.input[2] = f"{node.input[0]}.zero"
        kept.append(node)
    graph.nodes = kept


def _spread(scale: NDArray[Any], node: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return one scale (or zero point, as float32) for each value of a constant of ``shape``, broadcastable to it."""
    attributes = {each.name: each.i for each in node.attribute}
    scale = scale.astype(np.float32)
    if "block_size" in attributes:
        axis = attributes["axis"]
        return np.take(np.repeat(scale, attributes["block_size"], axis), range(shape[axis]), axis)
    if scale.ndim:
        return scale.reshape([-1 if axis == attributes.get("axis", 1) else 1 for axis in range(len(shape))])
    return scale


def matmul_blocks(graph: Graph) -> None:
    """Write Gemm of weights in blocks as MatMul of the transposed ones: what ONNX Runtime runs as MatMulNBits."""
    makers = graph.producer()
    nodes = []
    for node in graph.nodes:
        w = makers.get(node.input[1]) if node.op_type == "Gemm" else None
        if w is None or not any(each.name == "block_size" for each in w.attribute):
            nodes.append(node)
            continue
        for name in w.input:
            graph.constants[name] = np.ascontiguousarray(graph.constants[name].T)
        next(each for each in w.attribute if each.name == "axis").i = 0
        bias = list(node.input[2:])
        product = f"{node.output[0]}.product" if bias else node.output[0]
        nodes.append(helper.make_node("MatMul", list(node.input[:2]), [product]))
        if bias:
            nodes.append(helper.make_node("Add", [product, *bias], list(node.output)))
    graph.nodes = nodes


def clip_activations(graph: Graph) -> None:
    """Clip activations to a grid that is narrower than its integer type: 8-bit ones as integers, 16-bit ones before."""
    nodes = []
    for node in graph.nodes:
        ours = pop_ours(node) if node.op_type in {"QuantizeLinear", "DequantizeLinear"} else {}
        if not ours or node.op_type == "DequantizeLinear":
            nodes.append(node)
            continue
        scale, zero_point = (graph.constants[name] for name in node.input[1:3])
        kind = zero_point.dtype
        zero = int(zero_point)
        # a symmetric grid lies around its zero point, which is 128 where int8 is stored as uint8
        low, high = (bound + (zero if ours["qmin"] < 0 else 0) for bound in (ours["qmin"], ours["qmax"]))
        made = node.output[0]
        if kind.itemsize == 1:
            ends = [graph.constant(f"clip_{end}", np.full((), end, kind)) for end in (low, high)]
            node.output[0] = f"{made}.whole"
            nodes += [node, helper.make_node("Clip", [node.output[0], *ends], [made])]
        else:  # runtimes have no Clip of 16-bit integers
            real = [np.float32((end - zero) * np.float64(scale)) for end in (low, high)]
            ends = [graph.constant(f"clip_{end}", np.full((), end, np.float32)) for end in real]
            clip = helper.make_node("Clip", [node.input[0], *ends], [f"{made}.clipped"])
            node.input[0] = f"{made}.clipped"
            nodes += [clip, node]
    graph.nodes = nodes


def declare(model: Any) -> None:
    """Raise the opset of a finished model that holds 2-bit integers to the first that has them."""
    if any(
        tensor.data_type in {helper.np_dtype_to_tensor_dtype(np.dtype(each[2])) for each in (SIGNED, UNSIGNED)}
        for tensor in model.graph.initializer
    ):
        for each in model.opset_import:
            if not each.domain:
                each.version = max(each.version, INT2_OPSET)
        model.ir_version = max(model.ir_version, INT2_IR)
