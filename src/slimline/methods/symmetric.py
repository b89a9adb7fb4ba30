"""Symmetric quantization: zero maps to zero, weights per output channel, activations per tensor.

    x_q = round(x / x_max · (2^(b−1) − 1)),   x_max = max |x|

One multiplication and no zero point: what TensorRT and most accelerators ask for. Half of the grid of an activation
that follows a ReLU stays unused (``linear`` uses it). Krishnamoorthi 2018, arXiv:1806.08342.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from slimline.quantization.grids import Scheme
from slimline.quantization.plan import Quantize


@dataclass(frozen=True)
class Symmetric(Quantize):
    """Quantize around zero, weights and activations.

    The keys are those of ``slimline.quantization.keys.QuantizeKeys``.
    """

    name: ClassVar[str] = "symmetric"

    def schemes(self) -> tuple[Scheme, Scheme]:
        return "symmetric", "symmetric"
