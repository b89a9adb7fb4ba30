"""An ONNX model as rules look at it: constants, types, who makes and who reads a tensor."""

from __future__ import annotations

from collections import defaultdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from slimline.errors import ArtifactError


def read(path: Path) -> Graph:
    """Read an ONNX file. Raises ArtifactError when it is missing or no ONNX model."""
    try:
        model = onnx.load(path)
    except OSError as error:
        raise ArtifactError(f"{path}: not found, or it can't be read") from error
    except Exception as error:  # protobuf's DecodeError has no public home
        raise ArtifactError(f"{path}: not an ONNX model") from error
    if not model.graph.node:
        raise ArtifactError(f"{path}: not an ONNX model")
    return Graph(model, path)


class Graph:
    """The top-level graph of the model in the file ``path``."""

    def __init__(self, model: Any, path: Path) -> None:
        self.model, self.path = model, path
        self.nodes: list[Any] = list(model.graph.node)
        self.makers: dict[str, Any] = {name: node for node in self.nodes for name in node.output}
        self.readers: dict[str, list[Any]] = defaultdict(list)
        for node in self.nodes:
            for name in node.input:
                self.readers[name].append(node)
        self._places = {id(node): index for index, node in enumerate(self.nodes)}

    @cached_property
    def constants(self) -> dict[str, NDArray[Any]]:
        """Initializers and Constant nodes, as arrays."""
        found = {tensor.name: numpy_helper.to_array(tensor) for tensor in self.model.graph.initializer}
        for node in self.nodes:
            if node.op_type == "Constant":
                for each in node.attribute:
                    value = helper.get_attribute_value(each)
                    array = numpy_helper.to_array(value) if each.name == "value" else np.asarray(value)
                    found[node.output[0]] = array
        return found

    @cached_property
    def types(self) -> dict[str, int]:
        """ONNX element types of all tensors that shape inference knows."""
        inferred = onnx.shape_inference.infer_shapes(self.model).graph
        known = {
            value.name: value.type.tensor_type.elem_type
            for value in [*inferred.value_info, *inferred.input, *inferred.output]
        }
        return known | {tensor.name: tensor.data_type for tensor in self.model.graph.initializer}

    def type_name(self, tensor: str) -> str:
        """Return a tensor's element type as ONNX spells it, lower case; "?" where it is unknown."""
        return str(onnx.TensorProto.DataType.Name(self.types[tensor])).lower() if self.types.get(tensor) else "?"

    def of(self, *kinds: str) -> list[Any]:
        """Return the nodes of these operators, in the model's order."""
        return [node for node in self.nodes if node.op_type in kinds]

    def place(self, node: Any) -> str:
        """Return how to find a node: its number, operator, name if it has one, and its output."""
        name = f" {node.name!r}" if node.name else ""
        return f"node {self._places[id(node)]} {node.op_type}{name} -> {node.output[0]!r}"

    def maker(self, tensor: str, kind: str | None = None) -> Any | None:
        """Return the node that makes a tensor, if it is of operator ``kind``."""
        node = self.makers.get(tensor)
        return node if node is not None and kind in {None, node.op_type} else None

    def input(self, node: Any, index: int) -> str:
        """Return the name of a node's input, "" where it is left out."""
        return str(node.input[index]) if len(node.input) > index else ""

    def zero_point(self, node: Any) -> NDArray[Any] | None:
        """Return the zero point of a Q or DQ node; None where it is left out or computed."""
        return self.constants.get(self.input(node, 2))

    def quantized_type(self, node: Any) -> str:
        """Return the integer type on the quantized side of a Q or DQ node."""
        return self.type_name(node.output[0] if node.op_type == "QuantizeLinear" else node.input[0])
