"""Symmetric quantization: zero maps to zero, weights per output channel, activations per tensor.

    x_q = round(x / x_max · (2^(b−1) − 1)),   x_max = max |x|

One multiplication and no zero point: what TensorRT and most accelerators ask for. Half of the grid of an activation
that follows a ReLU stays unused (``linear`` uses it). Krishnamoorthi 2018, arXiv:1806.08342.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from slimline import quantization
from slimline.method import Batches, Context, Edit, Method, Plan
from slimline.quantizers import MinMax, Percentile, Spec


@dataclass(frozen=True)
class Symmetric(Method):
    """``bits`` for weights and activations; ``skip`` are globs of layers left in floating point."""

    bits: Annotated[int, Field(ge=8, le=8)] = 8
    calibrator: Literal["minmax", "percentile"] = "minmax"
    percentile: Annotated[float, Field(gt=50, le=100)] = 99.99
    skip: list[str] = field(default_factory=list)

    def plan(self, model: nn.Module, batches: Batches, context: Context) -> Plan:
        return quantization.plan(
            "symmetric",
            model,
            batches,
            context,
            weight=Spec(self.bits, "symmetric", axis=0),
            activation=Spec(self.bits, "symmetric"),
            observer=MinMax if self.calibrator == "minmax" else lambda: Percentile(self.percentile),
            skip=self.skip,
        )

    @staticmethod
    def apply(model: nn.Module, edit: Edit) -> nn.Module:
        return quantization.apply(model, edit)
