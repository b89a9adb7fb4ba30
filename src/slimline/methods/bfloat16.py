"""Weights in bfloat16: float32's exponent with 8 significant bits, so nothing overflows.

    ŵ = the bfloat16 next to w,   |ŵ − w| ≤ 2⁻⁸·|w|                        (Kalamkar et al. 2019, arXiv:1905.12322)

The file is half as large. CPUs compute in float32: the weights are turned to it when the model is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from slimline.quantization.float_weights import FloatWeights
from slimline.quantization.grids import FloatScheme


@dataclass(frozen=True)
class BFloat16(FloatWeights):
    """Store weights in bfloat16, but for layers that ``skip`` names (``slimline.quantization.float_weights``)."""

    name: ClassVar[str] = "bfloat16"
    scheme: ClassVar[FloatScheme] = "bfloat16"
