"""Export to ONNX with a dynamic batch axis and, for a quantized model, real int8 weights in QDQ form (opset 21)."""

from __future__ import annotations

import inspect
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from slimline.errors import ExportError
from slimline.export import qdq
from slimline.export.graph import LARGE, Graph
from slimline.layers import sharing
from slimline.quantization.quantizers import exporting, settle
from slimline.task import call

OPSET = 21
WHOLE = 2**24  # bytes of initializers that are written at once
LIMIT = 2**31  # bytes that no parser of protobuf opens


def export(model: nn.Module, signature: Mapping[str, Any], directory: Path, metadata: Mapping[str, str]) -> None:
    """Write ``directory``/model.onnx, its inputs and outputs named as ``signature`` says.

    Raises ExportError when torch can't export the model.
    """
    save(*in_parts(model, signature), directory / "model.onnx", metadata)


def save(graph: Any, arrays: Mapping[str, NDArray[Any]], path: Path, metadata: Mapping[str, str]) -> None:
    """Write an ONNX model, whose large initializers are ``arrays``, with ``metadata`` in it.

    A large one is written initializer by initializer: parts of a protobuf message that follow each other are one
    message, and neither the whole nor an initializer is serialized in memory. ``graph`` itself is taken apart by that:
    it has no initializers afterwards. Raises ExportError where the file would have 2 GiB.
    """
    import onnx

    for key, value in metadata.items():
        entry = graph.metadata_props.add()
        entry.key, entry.value = key, value
    held = sum(len(each.raw_data) for each in graph.graph.initializer) + sum(each.nbytes for each in arrays.values())
    if held < WHOLE:
        onnx.save(_whole(graph, arrays), path)
        return
    if held >= LIMIT:
        raise _too_large(path, metadata, held)
    with path.open("wb") as file:
        for tensor in graph.graph.initializer:
            _write_initializer(file, tensor, arrays.get(tensor.name))
        del graph.graph.initializer[:]
        file.write(graph.SerializeToString())
        written = file.tell()
    if written >= LIMIT:
        path.unlink()
        raise _too_large(path, metadata, written)


def _whole(graph: Any, arrays: Mapping[str, NDArray[Any]]) -> Any:
    """Put the large initializers into a model, and return it."""
    for tensor in graph.graph.initializer:
        if tensor.name in arrays:
            tensor.raw_data = arrays[tensor.name].tobytes()
    return graph


def _write_initializer(file: BinaryIO, tensor: Any, array: NDArray[Any] | None) -> None:
    """Write a model that has this initializer alone; raw bytes are written as they are, never in a message of ours."""
    import onnx

    if array is None and not tensor.HasField("raw_data"):
        file.write(onnx.ModelProto(graph=onnx.GraphProto(initializer=[tensor])).SerializeToString())
        return
    raw = tensor.raw_data if array is None else np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    head = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims).SerializeToString()
    head += _begin(onnx.TensorProto, "raw_data", len(raw))
    head = _begin(onnx.GraphProto, "initializer", len(head) + len(raw)) + head
    file.write(_begin(onnx.ModelProto, "graph", len(head) + len(raw)) + head)
    file.write(raw)


def _begin(message: Any, field: str, size: int) -> bytes:
    """Return how a field of ``size`` bytes begins in a protobuf message: its number with wire type 2, then the size."""
    found = bytearray()
    for number in (message.DESCRIPTOR.fields_by_name[field].number << 3 | 2, size):
        rest = number
        while rest > 0x7F:
            found.append(rest & 0x7F | 0x80)
            rest >>= 7
        found.append(rest)
    return bytes(found)


def _too_large(path: Path, metadata: Mapping[str, str], size: int) -> ExportError:
    stage = metadata.get("slimline.stage", "?")
    return ExportError(
        f"{path.name} of stage {stage!r} would have {size:,} bytes, an ONNX file has less than {LIMIT:,}: take the "
        "stage out of params.yaml: export.stages, or compress it (embedding, vocabulary, quantize)"
    )


def to_onnx(model: nn.Module, signature: Mapping[str, Any], tidy: Callable[[Graph], Any] = qdq.tidy) -> Any:
    """Return the ONNX model of ``model`` in evaluation mode, tidied by the graph passes of ``tidy``."""
    return _whole(*in_parts(model, signature, tidy))


def in_parts(
    model: nn.Module, signature: Mapping[str, Any], tidy: Callable[[Graph], Any] = qdq.tidy
) -> tuple[Any, dict[str, NDArray[Any]]]:
    """Return what ``to_onnx`` does with its large initializers by name alone, and those: mostly the model's weights."""
    model = sharing(model).eval().requires_grad_(requires_grad=False)
    settle(model)
    _pool_rows(model)
    most = signature.get("axes", {})
    names = dict.fromkeys(name for spec in signature["inputs"] for name in spec["shape"] if isinstance(name, str))
    axes = {name: torch.export.Dim(name, max=most.get(name)) for name in names}
    sizes = {name: 2 + at for at, name in enumerate(names)}  # of one size, two axes would count as one
    examples, shapes = [], []
    for spec in signature["inputs"]:
        size = [sizes[each] if isinstance(each, str) else each for each in spec["shape"]]
        dtype = getattr(torch, spec["dtype"])
        examples.append(torch.zeros(size, dtype=dtype))
        shapes.append({at: axes[each] for at, each in enumerate(spec["shape"]) if isinstance(each, str)})
    order = [spec["name"] for spec in signature["inputs"]]
    fits = len(order) == 1 or list(inspect.signature(model.forward).parameters)[: len(order)] == order
    try:
        with exporting(), _quiet():
            program = torch.onnx.export(
                model if fits else _Named(model, order), tuple(examples), dynamo=True, opset_version=OPSET,
                dynamic_shapes=tuple(shapes) if fits else (tuple(shapes),), verbose=False, input_names=order,
                output_names=[spec["name"] for spec in signature["outputs"]],
            )  # fmt: skip
    except Exception as error:
        first = str(error).strip().splitlines()
        raise ExportError(f"torch can't export this model to ONNX: {first[0] if first else error!r}") from error
    assert program is not None  # noqa: S101  (given when dynamo=True and no file is named)
    arrays = _taken(program.model)
    graph = Graph(program.model_proto, arrays)
    return tidy(graph), graph.apart


def _taken(model: Any) -> dict[str, NDArray[Any]]:
    """Take the numbers of large initializers out of the exporter's model, which serializes all that it holds.

    They are the model's own weights still, so nothing may write into them.
    """
    import onnx_ir

    arrays = {}
    for name, value in model.graph.initializers.items():
        held = value.const_value
        if held is not None and held.nbytes >= LARGE and held.dtype == onnx_ir.DataType.FLOAT:
            arrays[name] = held.numpy().view()
            arrays[name].flags.writeable = False
            value.const_value = onnx_ir.tensor(np.zeros(0, np.float32), name=name)
    return arrays


class _Named(nn.Module):
    """Takes its inputs by position and gives them to the model by name."""

    def __init__(self, model: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *inputs: Tensor) -> Tensor:
        return call(self.model, dict(zip(self.names, inputs, strict=True)))


def _pool_rows(model: nn.Module) -> None:
    """Let pooling read its input in the order of its shape.

    What a LayerNorm over channels gives lies channels last, and of that torch pools through ``as_strided``, a Gather of
    single numbers in ONNX.
    """

    def contiguous(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (args[0].contiguous(), *args[1:])

    for module in model.modules():
        if isinstance(module, nn.AdaptiveAvgPool2d):
            module.register_forward_pre_hook(contiguous)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress and its notes on packages that aren't installed off the terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
