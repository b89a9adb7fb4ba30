"""Weights in float16 (IEEE 754 binary16): 11 significant bits, values up to 65504.

    ŵ = the float16 next to w,   |ŵ − w| ≤ 2⁻¹¹·|w|  from 2⁻¹⁴ up, ≤ 2⁻²⁵ below        (Micikevicius et al. 2018,
                                                                                         arXiv:1710.03740)

The file is half as large. CPUs have no kernels for it: there the weights become float32 when the model is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from slimline.quantization.float_weights import FloatWeights
from slimline.quantization.grids import FloatScheme


@dataclass(frozen=True)
class Float16(FloatWeights):
    """Store weights in float16, but for layers that ``skip`` names (``slimline.quantization.float_weights``)."""

    name: ClassVar[str] = "float16"
    scheme: ClassVar[FloatScheme] = "float16"
