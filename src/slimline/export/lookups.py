"""Graph pass for embeddings in 8 bits: look the integers up, then restore the rows found, not the whole table.

table[V, d] = s[V, 1]·table_q[V, d]        Gather(table, ids) = Gather(s, ids)·float(Gather(table_q, ids))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, helper

if TYPE_CHECKING:
    from slimline.export.graph import Graph


def integers(graph: Graph) -> None:
    """Replace DequantizeLinear → Gather of a constant table that has a scale a row, or one in all."""
    makers = graph.producer()
    nodes: list[Any] = []
    for node in graph.nodes:
        restored = makers.get(node.input[0]) if node.op_type == "Gather" else None
        found = None if restored is None else _table(graph, node, restored)
        nodes += [node] if found is None else _lookup(graph, node, *found)
    graph.nodes = nodes


def _table(graph: Graph, gather: Any, restored: Any) -> tuple[str, Any] | None:
    """Return the name of the integers and their scales [rows, 1] or [1, 1], or None where it is no such table."""
    if restored.op_type != "DequantizeLinear" or restored.input[0] not in graph.constants:
        return None
    attributes = {each.name: helper.get_attribute_value(each) for each in (*gather.attribute, *restored.attribute)}
    values, scale = graph.constants[restored.input[0]], graph.constants[restored.input[1]]
    zero_point = graph.constants[restored.input[2]] if len(restored.input) > 2 else np.zeros(1)
    by_row = scale.ndim == 0 or (scale.ndim == 1 and attributes.get("axis", 1) == 0)
    if values.dtype != np.int8 or values.ndim != 2 or zero_point.any() or not by_row or "block_size" in attributes:
        return None
    return restored.input[0], scale.reshape(-1, 1)


def _lookup(graph: Graph, gather: Any, table: str, scale: Any) -> list[Any]:
    ids, out = gather.input[1], gather.output[0]
    steps = graph.constant(f"{table}.steps", scale)
    made = [
        helper.make_node("Gather", [table, ids], [f"{out}.integers"]),
        helper.make_node("Cast", [f"{out}.integers"], [f"{out}.float"], to=TensorProto.FLOAT),
    ]
    if len(scale) > 1:
        made.append(helper.make_node("Gather", [steps, ids], [f"{out}.steps"]))
        steps = f"{out}.steps"
    return [*made, helper.make_node("Mul", [f"{out}.float", steps], [out])]
