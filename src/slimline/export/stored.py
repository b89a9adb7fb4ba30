"""How many bytes of an ONNX file belong to which layer.

Names of torch don't survive the graph passes, so the layers in the order in which the model calls them are laid beside
the nodes that have a constant weight, and those whose weights have the same shape belong together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher
from math import prod
from pathlib import Path
from typing import Any

WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "MatMul", "MatMulInteger", "Gather"}
THROUGH = {"DequantizeLinear", "Cast", "Transpose", "Reshape", "Identity"}


def by_layer(path: Path, calls: Sequence[tuple[str, Sequence[int]]]) -> dict[str, int]:
    """Return the bytes of weight, bias and their scales and zero points of each layer found in the file.

    ``calls`` are (layer, shape of its weight) in the order of the calls. A constant that several nodes read counts for
    the first. A layer that no node can be told to belong to is left out.
    """
    import onnx

    graph = onnx.load(path).graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    producers = {output: node for node in graph.node for output in node.output}
    nodes: list[tuple[tuple[int, ...], set[str]]] = []
    for node in graph.node:
        if node.op_type not in WEIGHTED:
            continue
        read = {name: _constants(name, constants, producers) for name in node.input}
        held = set().union(*read.values())
        weight = max(held, key=lambda name: _extent(constants[name].dims), default="")
        if weight and len(constants[weight].dims) >= 2:
            nodes.append((_shape(constants[weight].dims), held | _bias(node, graph, constants)))
    wanted = [_shape(shape) for _, shape in calls]
    blocks = SequenceMatcher(None, wanted, [shape for shape, _ in nodes], autojunk=False).get_matching_blocks()
    found: Counter[str] = Counter()
    counted: set[str] = set()
    for block in blocks:
        for offset in range(block.size):
            own = nodes[block.b + offset][1] - counted
            found[calls[block.a + offset][0]] += sum(constants[name].ByteSize() for name in own)
            counted |= own
    return dict(found)


def _extent(dims: Sequence[int]) -> tuple[int, int]:
    """Return what tells a weight from its scales and zero points: more axes, or else more values."""
    return len(dims), prod(dims)


def _shape(dims: Sequence[int]) -> tuple[int, ...]:
    return tuple(sorted(dims))  # a linear layer's weight may be stored transposed


def _constants(name: str, constants: dict[str, Any], producers: dict[str, Any]) -> set[str]:
    """Return the initializers that a tensor is made from, by nothing but unpacking."""
    if name in constants:
        return {name}
    node = producers.get(name)
    if node is None or node.op_type not in THROUGH:
        return set()
    held = [_constants(each, constants, producers) for each in node.input if each]
    return set().union(*held) if held and held[0] else set()


def _bias(node: Any, graph: Any, constants: dict[str, Any]) -> set[str]:
    """Return the constant that is added to a MatMul's product."""
    if node.op_type != "MatMul":
        return set()
    readers = [each for each in graph.node if each.op_type == "Add" and node.output[0] in each.input]
    return {name for each in readers for name in each.input if name in constants}
