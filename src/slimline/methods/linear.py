"""Linear (affine) quantization of activations: the grid spans exactly the values that occur.

    x_q = round((x − x_min) / (x_max − x_min) · (2^b − 1))

After a ReLU x_min is 0, so all 2^b steps are used and the runtime can drop the ReLU itself. Weights stay symmetric per
output channel by default (their zero points would cost a correction term in every product); ``weights: linear`` gives
them one affine grid a layer. Jacob et al. 2018, arXiv:1712.05877.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from torch import nn

from slimline import dynamic_ranges
from slimline.errors import MethodError
from slimline.grids import Scheme, Spec
from slimline.method import Batches, Context, Plan
from slimline.quantization import Quantize


@dataclass(frozen=True)
class Linear(Quantize):
    """Quantize activations to the range that occurs, weights symmetrically or as ``weights`` says.

    The other keys are ``ranges`` and those of ``slimline.quantization.Quantize``.

    ``ranges`` of the inputs of nn.Linear: ``static`` from calibration, ``dynamic`` those of the batch at hand, ``auto``
    what the target runs faster (``slimline.dynamic_ranges``). Other layers' are static.
    """

    weights: Scheme = "symmetric"
    ranges: Literal["static", "dynamic", "auto"] = "static"

    name: ClassVar[str] = "linear"

    def schemes(self) -> tuple[Scheme, Scheme]:
        return self.weights, "linear"

    def activation_spec(self, layer: nn.Module | None = None) -> Spec | None:
        spec = super().activation_spec(layer)
        if spec is None or self.ranges != "dynamic" or not isinstance(layer, nn.Linear):
            return spec
        return replace(spec, dynamic=True)

    def check(self, where: str) -> None:
        super().check(where)
        if self.ranges == "static":
            return
        if self.learned_steps:
            raise MethodError(
                f"{where}.ranges: a range found as the model runs has no step to learn; drop learned_steps"
            )
        if (self.activation_bits or self.bits) != 8:
            raise MethodError(f"{where}.ranges: {self.ranges} takes activations of 8 bits")

    def plan(self, model: nn.Module, batches: Batches, context: Context) -> Plan:
        if self.ranges != "auto":
            return super().plan(model, batches, context)
        self.check(context.where)
        kinds = {"static": replace(self, ranges="static"), "dynamic": replace(self, ranges="dynamic")}
        taken, notes = dynamic_ranges.choose(kinds, model, batches, context)
        plan = kinds[taken].plan(model, batches, context)
        return replace(plan, notes=[*plan.notes, *notes])
