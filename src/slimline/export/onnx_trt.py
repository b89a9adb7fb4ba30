"""ONNX as TensorRT takes it: explicit Q/DQ, int8 with zero point 0, weights per output channel, float biases.

ONNX Runtime's file (``onnx``) has uint8 activations, int32 biases and integer ReLUs: TensorRT's parser rejects all
three. Both files come from the same trained quantizers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from torch import nn

from slimline.export import padding, qdq
from slimline.export.graph import Graph, check
from slimline.export.onnx import in_parts, save
from slimline.export.signed import half, requantize

FILE = "model.trt.onnx"


@dataclass(frozen=True)
class OnnxTrt:
    """``fp16``: everything that isn't int8 in float16. ``max_drop``: how much the primary metric may lose by it."""

    fp16: bool = False
    max_drop: Annotated[float, Field(ge=0)] = 0.01

    def __call__(
        self, model: nn.Module, signature: Mapping[str, Any], directory: Path, metadata: Mapping[str, str]
    ) -> dict[str, Any]:
        """Write ``directory``/model.trt.onnx. Raises ExportError when torch can't export it."""
        signed, changed = requantize(model)
        save(*in_parts(half(signed) if self.fp16 else signed, signature, tidy), directory / FILE, metadata)
        return {"file": FILE, "fp16": self.fp16, "requantized": changed, "max_drop": self.max_drop}


def tidy(graph: Graph) -> Any:
    """Run the passes that keep zero points 0 and biases float, and return the checked model."""
    passes = (
        qdq.simplify, qdq.share_factors, padding.fold, qdq.share_quantizers, qdq.fold_weights, qdq.share_constants,
    )  # fmt: skip
    for each in passes:
        each(graph)
    finished = graph.finish()
    check(finished, graph.apart)
    return finished
