"""ONNX in float16, for GPUs: float32 inputs and outputs, half the bytes, no quantizers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from torch import nn

from slimline.export.onnx import in_parts, save
from slimline.export.signed import half
from slimline.quantization import quantizers

FILE = "model.fp16.onnx"


@dataclass(frozen=True)
class OnnxFp16:
    """``max_drop``: how much the primary metric may lose by it. A quantized model is written without its quantizers."""

    max_drop: Annotated[float, Field(ge=0)] = 0.01

    def __call__(
        self, model: nn.Module, signature: Mapping[str, Any], directory: Path, metadata: Mapping[str, str]
    ) -> dict[str, Any]:
        """Write ``directory``/model.fp16.onnx. Raises ExportError when torch can't export it."""
        save(*in_parts(half(quantizers.plain(model)), signature), directory / FILE, metadata)
        return {"file": FILE, "max_drop": self.max_drop}
