"""Graph pass for weights in floating point of 16 bits: stored as such, behind a Cast to float32.

A quantizer of such a format is exported as a node of our own (domain ``slimline``), since the exporter would fold two
casts of a constant into one of float32. Runtimes fold the Cast when they load the model.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from onnx import TensorProto, helper

from slimline.export.graph import DOMAIN, Graph

TYPES = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def store(graph: Graph) -> None:
    """Replace each of our nodes by a Cast of the constant in its 16-bit format."""
    for node in graph.nodes:
        if node.domain != DOMAIN or node.op_type not in TYPES:
            continue
        name = node.input[0]
        stored = f"{name}.{node.op_type}"
        graph.constants[stored] = graph.constants[name].astype(TYPES[node.op_type])
        node.CopyFrom(helper.make_node("Cast", [stored], list(node.output), to=TensorProto.FLOAT))


def undeclare(model: Any) -> None:
    """Take our domain out of a finished model."""
    kept = [each for each in model.opset_import if each.domain != DOMAIN]
    del model.opset_import[:]
    model.opset_import.extend(kept)
