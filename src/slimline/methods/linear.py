"""Linear (affine) quantization of activations: the grid spans exactly the values that occur.

    x_q = round((x − x_min) / (x_max − x_min) · (2^b − 1))

After a ReLU x_min is 0, so all 2^b steps are used and the runtime can drop the ReLU itself. Weights stay symmetric per
output channel by default (their zero points would cost a correction term in every product); ``weights: linear`` gives
them one affine grid a layer. Jacob et al. 2018, arXiv:1712.05877.
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
class Linear(Method):
    """``bits`` for weights and activations; ``skip`` are globs of layers left in floating point."""

    bits: Annotated[int, Field(ge=8, le=8)] = 8
    weights: Literal["symmetric", "linear"] = "symmetric"
    calibrator: Literal["minmax", "percentile"] = "minmax"
    percentile: Annotated[float, Field(gt=50, le=100)] = 99.99
    skip: list[str] = field(default_factory=list)

    def plan(self, model: nn.Module, batches: Batches, context: Context) -> Plan:
        weight = Spec(self.bits, "symmetric", axis=0) if self.weights == "symmetric" else Spec(self.bits, "linear")
        return quantization.plan(
            "linear",
            model,
            batches,
            context,
            weight=weight,
            activation=Spec(self.bits, "linear"),
            observer=MinMax if self.calibrator == "minmax" else lambda: Percentile(self.percentile),
            skip=self.skip,
        )

    @staticmethod
    def apply(model: nn.Module, edit: Edit) -> nn.Module:
        return quantization.apply(model, edit)
