"""Linear (affine) quantization of activations: the grid spans exactly the values that occur.

    x_q = round((x − x_min) / (x_max − x_min) · (2^b − 1))

After a ReLU x_min is 0, so all 2^b steps are used and the runtime can drop the ReLU itself. Weights stay symmetric per
output channel by default (their zero points would cost a correction term in every product); ``weights: linear`` gives
them one affine grid a layer. Jacob et al. 2018, arXiv:1712.05877.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from slimline.grids import Scheme
from slimline.quantization import Quantize


@dataclass(frozen=True)
class Linear(Quantize):
    """Its keys are those of ``slimline.quantization.Quantize``, and the scheme of the ``weights``."""

    weights: Scheme = "symmetric"

    name: ClassVar[str] = "linear"

    def schemes(self) -> tuple[Scheme, Scheme]:
        return self.weights, "linear"
