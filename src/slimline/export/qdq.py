"""Graph passes over an exported ONNX model: real integer weights, one QuantizeLinear a tensor, nothing superfluous.

The exporter leaves float weights behind QuantizeLinear → DequantizeLinear pairs. Runtimes fuse
DequantizeLinear → Conv → QuantizeLinear into one integer kernel when weight and bias are integers already.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import helper

from slimline.export import dynamic, floats, lookups, padding, widths
from slimline.export.graph import Graph, attribute, check

AXIS_DEFAULT = 1
BIAS_LIMIT = 2**30  # half of int32: the sums of products need room too
EIGHT_BITS = (np.int8, np.uint8)
POOLS = ("GlobalAveragePool", "AveragePool")


def simplify(graph: Graph) -> None:
    """Write a mean over both image axes as GlobalAveragePool, and a reshape after it to rows as Flatten: runtimes fuse
    these.
    """
    makers = graph.producer()
    shapes = graph.shapes()
    for node in graph.nodes:
        if node.op_type == "ReduceMean" and len(node.input) == 2 and attribute(node, "keepdims", 1) == 1:
            axes = graph.constants.get(node.input[1])
            if axes is not None and sorted(axes.tolist()) in ([2, 3], [-2, -1]):
                node.op_type = "GlobalAveragePool"
                del node.input[1:], node.attribute[:]
        elif (
            node.op_type == "Reshape"
            and getattr(makers.get(node.input[0]), "op_type", "") in POOLS
            and _is_flat(shapes.get(node.input[0]), shapes.get(node.output[0]))
        ):
            node.op_type = "Flatten"
            del node.input[1:], node.attribute[:]


def share_factors(graph: Graph) -> None:
    """Keep one Mul of a tensor by each constant, whoever wrote it: layers that read one tensor are smoothed by one
    factor.
    """
    seen: dict[tuple[Any, ...], str] = {}
    names: dict[str, str] = {}
    kept = []
    for node in graph.nodes:
        factor = graph.constants.get(node.input[1]) if node.op_type == "Mul" else None
        if factor is None or node.input[0] in graph.constants:
            kept.append(node)
            continue
        first = seen.setdefault((node.input[0], *_same(factor)), node.output[0])
        if first == node.output[0]:
            kept.append(node)
        else:
            names[node.output[0]] = first
    graph.nodes = kept
    graph.rename_uses(names)


def _same(value: NDArray[Any]) -> tuple[str, tuple[int, ...], bytes]:
    """Return what two constants must share to be one: bytes alone are no numbers."""
    return value.dtype.name, value.shape, value.tobytes()


def _is_flat(pooled: list[int] | None, reshaped: list[int] | None) -> bool:
    """Return whether a reshape keeps the rows and joins all else; sizes that aren't known are 0."""
    if pooled is None or reshaped is None:
        return False
    return len(reshaped) == 2 and 0 not in pooled[1:] and reshaped[1] == math.prod(pooled[1:])


def share_quantizers(graph: Graph) -> None:
    """Keep one QuantizeLinear → DequantizeLinear pair for each (tensor, scale, zero point, attributes)."""
    seen: dict[tuple[Any, ...], str] = {}
    for kind in ("QuantizeLinear", "DequantizeLinear"):
        names: dict[str, str] = {}
        kept = []
        for node in graph.nodes:
            if node.op_type != kind:
                kept.append(node)
                continue
            grid = tuple(_same(graph.constants[name]) for name in node.input[1:3])
            settings = tuple(sorted(each.SerializeToString() for each in node.attribute))
            key = (kind, node.input[0], grid, settings)
            if key in seen:
                names[node.output[0]] = seen[key]
            else:
                seen[key] = node.output[0]
                kept.append(node)
        graph.nodes = kept
        graph.rename_uses(names)


def shift_activations(graph: Graph) -> None:
    """Store int8 activations of zero point 0 as uint8 of zero point 128: the same grid, faster on CPUs."""
    shifted = graph.constant("zero_point_128", np.full((), 128, np.uint8))
    for node in graph.nodes:
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"} and node.input[0] not in graph.constants:
            zero_point = graph.constants[node.input[2]]
            if zero_point.dtype == np.int8 and not zero_point.any():
                node.input[2] = shifted


def move_relus(graph: Graph) -> None:
    """Write Relu → QuantizeLinear(zero point 128) as QuantizeLinear → Clip(128): the same integers, exactly.

    A runtime fuses the quantizer with the convolution before it then; between the two a Relu would force floats. Where
    the zero point is the grid's lowest value, the quantizer clips negative values itself and runtimes drop the Relu.
    """
    makers = graph.producer()
    readers = Counter(name for node in graph.nodes for name in node.input)
    nodes = []
    for node in graph.nodes:
        nodes.append(node)
        relu = makers.get(node.input[0]) if node.op_type == "QuantizeLinear" else None
        if relu is None or relu.op_type != "Relu" or readers[relu.output[0]] > 1:
            continue
        zero_point = graph.constants[node.input[2]]
        if zero_point.dtype != np.uint8 or zero_point != 128:
            continue
        clipped = node.output[0]
        node.input[0], node.output[0] = relu.input[0], f"{clipped}.signed"
        floor = graph.constant("floor", np.full((), 128, np.uint8))
        nodes.append(helper.make_node("Clip", [node.output[0], floor], [clipped]))
    graph.nodes = nodes


def fold_weights(graph: Graph) -> None:
    """Replace QuantizeLinear of a constant by the integers it yields."""
    names: dict[str, str] = {}
    kept = []
    for node in graph.nodes:
        if node.op_type != "QuantizeLinear" or node.input[0] not in graph.constants:
            kept.append(node)
            continue
        values, scale, zero_point = (graph.constants[name] for name in node.input[:3])
        if scale.ndim:
            shape = [1] * values.ndim
            shape[attribute(node, "axis", AXIS_DEFAULT)] = -1
            scale, zero_point = scale.reshape(shape), zero_point.reshape(shape)
        info = np.iinfo(zero_point.dtype)
        low = -info.max if info.min else 0  # a signed grid is symmetric
        grid = values / scale  # one float copy at a time
        np.rint(grid, out=grid)
        grid += zero_point.astype(np.float32)
        name = f"{node.input[0]}.int"
        graph.constants[name] = np.clip(grid, low, info.max, out=grid).astype(zero_point.dtype)
        names[node.output[0]] = name
    graph.nodes = kept
    graph.rename_uses(names)


def quantize_biases(graph: Graph) -> None:
    """Store the bias of an integer Conv or Gemm as int32 on the grid of its products: scale s_x · s_w.

    Beside weights of fewer than 8 bits that grid is coarse and no integer kernel asks for it: the bias gets a fine grid
    of its own then (ONNX Runtime would put a float bias on the coarse one itself).
    """
    makers = graph.producer()
    added: list[tuple[Any, Any]] = []
    for node in graph.nodes:
        if node.op_type not in {"Conv", "Gemm"} or len(node.input) < 3 or node.input[2] not in graph.constants:
            continue
        x, w = makers.get(node.input[0]), makers.get(node.input[1])
        if x is None or w is None or {x.op_type, w.op_type} != {"DequantizeLinear"}:
            continue
        kinds = [graph.constants[each.input[2]].dtype for each in (x, w)]
        if any(kind.itemsize > 1 for kind in kinds) or attribute(w, "block_size"):
            continue
        bias = graph.constants[node.input[2]]
        if kinds[1] in EIGHT_BITS:
            _make_room(graph, x, w, bias)
            products = graph.constants[x.input[1]] * graph.constants[w.input[1]]
        else:
            products = np.maximum(np.abs(bias) / BIAS_LIMIT, np.finfo(np.float32).tiny)
        scale = np.broadcast_to(products, bias.shape).astype(np.float32)
        limit = np.iinfo(np.int32)
        integers = np.clip(np.rint(bias.astype(np.float64) / scale), limit.min, limit.max).astype(np.int32)
        base = node.input[2]
        while f"{base}.int" in graph.constants:  # equal biases are one constant, and their scales differ
            base += "_"
        graph.constants[f"{base}.int"] = integers
        graph.constants[f"{base}.scale"] = scale
        zero = graph.constant("zero_points", np.zeros(bias.shape, np.int32))
        restored = helper.make_node(
            "DequantizeLinear", [f"{base}.int", f"{base}.scale", zero], [f"{base}.restored"], axis=0
        )
        node.input[2] = f"{base}.restored"
        added.append((node, restored))
    for node, restored in added:
        graph.nodes.insert(next(i for i, each in enumerate(graph.nodes) if each is node), restored)


def _make_room(graph: Graph, x: Any, w: Any, bias: NDArray[Any]) -> None:
    """Fit the scales of channels' weights to what their bias needs of the grid s_x · s_w.

    Where it would overflow int32 the weights are next to nothing, and get coarser. Channels without any weight left
    have a scale that means nothing, so they take the finest grid that the bias fits on.
    """
    values, scale, zero_point = (graph.constants[name] for name in w.input[:3])
    least = np.abs(bias.astype(np.float64)) / (float(graph.constants[x.input[1]]) * BIAS_LIMIT)
    shape = [1] * values.ndim
    if scale.ndim:
        shape[attribute(w, "axis", AXIS_DEFAULT)] = -1
    centred = values - zero_point.astype(np.float64).reshape(shape)
    fitted = np.maximum(scale, least if scale.ndim else least.max())
    if scale.ndim:
        others = tuple(axis for axis, size in enumerate(shape) if size == 1)
        empty = ~centred.any(axis=others)
        fitted = np.where(empty, np.maximum(least, np.finfo(np.float32).tiny), fitted)
    fitted = fitted.astype(np.float32)
    if np.array_equal(fitted, scale):
        return
    integers = np.rint(centred * (scale / fitted).reshape(shape)) + zero_point.astype(np.float64).reshape(shape)
    w.input[0] = graph.constant(f"{w.input[0]}.fitted", integers.astype(values.dtype))
    w.input[1] = graph.constant(f"{w.input[1]}.fitted", fitted)


def transpose_weights(graph: Graph) -> None:
    """Store 8-bit weights that are transposed before a product as they are multiplied.

    ONNX Runtime transposes them itself as it loads a file, through floats: four times their size, and most of the time
    that loading takes.
    """
    makers = graph.producer()
    nodes = []
    for node in graph.nodes:
        maker = makers.get(node.input[0]) if node.op_type == "Transpose" else None
        values = graph.constants.get(maker.input[0]) if maker is not None else None
        if (
            maker is None
            or values is None
            or maker.op_type != "DequantizeLinear"
            or values.dtype not in EIGHT_BITS
            or values.ndim != 2
            or attribute(maker, "block_size")
            or attribute(node, "perm", [1, 0]) != [1, 0]
        ):
            nodes.append(node)
            continue
        name = f"{maker.input[0]}.transposed"
        graph.constants[name] = values.T
        axis = 1 - attribute(maker, "axis", AXIS_DEFAULT) % 2
        turned = helper.make_node("DequantizeLinear", [name, *maker.input[1:]], list(node.output), axis=axis)
        if graph.constants[maker.input[1]].ndim == 0:
            del turned.attribute[:]
        nodes.append(turned)
    graph.nodes = nodes


def share_constants(graph: Graph) -> None:
    """Let equal small constants (zero points, mostly) stand once."""
    first: dict[tuple[Any, ...], str] = {}
    names = {}
    for name, value in graph.constants.items():
        if value.size > 4096:
            continue
        key = _same(value)
        if key in first:
            names[name] = first[key]
        else:
            first[key] = name
    graph.rename_uses(names)


def tidy(graph: Graph) -> Any:
    """Run every pass and return the checked model."""
    simplify(graph)
    share_factors(graph)
    padding.fold(graph)
    share_quantizers(graph)
    floats.store(graph)
    widths.fold_weights(graph)
    widths.matmul_blocks(graph)
    fold_weights(graph)
    lookups.integers(graph)
    shift_activations(graph)
    widths.clip_activations(graph)
    move_relus(graph)
    quantize_biases(graph)
    dynamic.integers(graph)
    transpose_weights(graph)
    share_constants(graph)
    finished = graph.finish()
    widths.declare(finished)
    floats.undeclare(finished)
    check(finished, graph.apart)
    return finished
