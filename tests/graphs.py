"""What stands in an ONNX model."""

from __future__ import annotations

from collections import Counter
from typing import Any


def counts(model: Any) -> Counter[str]:
    """Return how many nodes of each operator a model has."""
    return Counter(node.op_type for node in model.graph.node)
