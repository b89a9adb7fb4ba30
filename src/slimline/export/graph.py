"""An ONNX graph as the passes see it: initializers as arrays, nodes in order, written back short and checked."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

DOMAIN = "slimline"  # of nodes of our own, which passes replace
LARGE = 2**16  # bytes of an initializer
PLAIN = tuple(np.dtype(each) for each in ("<f4", "<f2", "i1", "u1"))  # lie in a file as they do in memory


class Graph:
    """An ONNX graph with its initializers as arrays, written back by ``finish``.

    ``arrays`` are those that the model holds by name alone: large ones, which then exist once. Where they are given,
    large ones are left out of what ``finish`` returns too: ``apart`` has them.
    """

    def __init__(self, model: Any, arrays: Mapping[str, NDArray[Any]] | None = None) -> None:
        self.model = model
        self.graph = model.graph
        held = arrays or {}
        self.apart: dict[str, NDArray[Any]] = {}
        self._keeps_apart = arrays is not None
        self.constants: dict[str, NDArray[Any]] = {
            tensor.name: held[tensor.name] if tensor.name in held else numpy_helper.to_array(tensor)
            for tensor in self.graph.initializer
        }
        self.nodes: list[Any] = list(self.graph.node)

    def producer(self) -> dict[str, Any]:
        """Return the node that makes each tensor."""
        return {output: node for node in self.nodes for output in node.output}

    def shapes(self) -> dict[str, list[int]]:
        """Return the sizes of the tensors whose rank is known; a size that isn't known, as that of the batch, is 0."""
        known = [*self.graph.value_info, *self.graph.input, *self.graph.output]
        return {
            each.name: [size.dim_value for size in each.type.tensor_type.shape.dim]
            for each in known
            if each.type.tensor_type.HasField("shape")
        }

    def rename_uses(self, names: dict[str, str]) -> None:
        """Let every reader of a key read its value instead."""
        for node in self.nodes:
            for index, name in enumerate(node.input):
                if name in names:
                    node.input[index] = names[name]

    def constant(self, hint: str, value: NDArray[Any]) -> str:
        """Add an initializer and return its name; an equal one is shared."""
        for name, known in self.constants.items():
            if known.dtype == value.dtype and known.shape == value.shape and np.array_equal(known, value):
                return name
        name = hint
        while name in self.constants:
            name += "_"
        self.constants[name] = value
        return name

    def finish(self) -> Any:
        """Write nodes and the initializers still in use back, with short names and no debug texts."""
        self.nodes = _live(self.nodes, {output.name for output in self.graph.output})
        _shorten(self)
        used = {name for node in self.nodes for name in node.input}
        del self.graph.node[:], self.graph.initializer[:], self.graph.value_info[:]
        for node in self.nodes:
            node.doc_string, node.name = "", ""
            del node.metadata_props[:]
        self.graph.node.extend(self.nodes)
        self.graph.initializer.extend(
            self._initializer(name, np.asarray(value)) for name, value in self.constants.items() if name in used
        )
        for value in [*self.graph.input, *self.graph.output]:
            value.doc_string = ""
            del value.metadata_props[:]
        del self.graph.metadata_props[:], self.model.metadata_props[:], self.model.functions[:]
        self.graph.doc_string, self.graph.name = "", "slimline"
        return self.model

    def _initializer(self, name: str, value: NDArray[Any]) -> Any:
        if not self._keeps_apart or value.nbytes < LARGE or value.dtype not in PLAIN:
            return numpy_helper.from_array(value, name)
        self.apart[name] = value
        kind = helper.np_dtype_to_tensor_dtype(value.dtype)
        return onnx.TensorProto(name=name, data_type=kind, dims=value.shape)


def attribute(node: Any, name: str, default: Any = None) -> Any:
    """Return a node's attribute value, or ``default``."""
    return next((helper.get_attribute_value(each) for each in node.attribute if each.name == name), default)


def _live(nodes: list[Any], wanted: set[str]) -> list[Any]:
    live = []
    for node in reversed(nodes):
        if wanted & set(node.output):
            live.append(node)
            wanted |= set(node.input)
    return live[::-1]


def _shorten(graph: Graph) -> None:
    """Rename inner tensors to their running number; a small model is half names otherwise."""
    outer = {value.name for value in [*graph.graph.input, *graph.graph.output]}
    names: dict[str, str] = {}
    constants = {}
    for node in graph.nodes:
        for name in [*node.input, *node.output]:
            if name and name not in outer and name not in names:
                names[name] = f"{len(names):x}"
    for node in graph.nodes:
        for at, name in enumerate(node.output):
            node.output[at] = names.get(name, name)
    graph.rename_uses(names)
    for name, value in graph.constants.items():
        if name in names:
            constants[names[name]] = value
    graph.constants = constants


def check(model: Any, apart: Collection[str] = ()) -> None:
    """Raise onnx's error where a model isn't valid; initializers that are large or lie ``apart`` stand for themselves
    by shape and type.
    """
    skeleton = onnx.ModelProto()
    skeleton.CopyFrom(onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import))
    graph = skeleton.graph
    graph.name = model.graph.name
    for field in ("node", "input", "output"):
        getattr(graph, field).extend(getattr(model.graph, field))
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) < LARGE and tensor.name not in apart:
            graph.initializer.append(tensor)
        else:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    onnx.checker.check_model(skeleton, full_check=True)
