"""Linear (affine) quantization of activations: the grid spans exactly the values that occur.

    x_q = round((x − x_min) / (x_max − x_min) · (2^b − 1))

After a ReLU x_min is 0, so all 2^b steps are used and the runtime can drop the ReLU itself. Weights stay symmetric per
output channel by default (their zero points would cost a correction term in every product); ``weights: linear`` gives
them one affine grid a layer. Jacob et al. 2018, arXiv:1712.05877.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import ClassVar, Literal

from torch import nn

from slimline.errors import MethodError
from slimline.method import Batches, Context, Plan
from slimline.quantization import dynamic_ranges
from slimline.quantization.grids import Scheme, Spec
from slimline.quantization.plan import Quantize

DYNAMIC_BITS = 8  # runtimes find ranges as they run for this width alone


@dataclass(frozen=True)
class Linear(Quantize):
    """Quantize activations to the range that occurs, weights symmetrically or as ``weights`` says.

    The other keys are ``ranges`` and those of ``slimline.quantization.keys.QuantizeKeys``.

    ``ranges`` of the inputs of nn.Linear: ``static`` from calibration, ``dynamic`` those of the batch at hand, ``auto``
    what the target runs faster (``slimline.quantization.dynamic_ranges``). Other layers' are static.
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
        if (self.activation_bits or self.bits) != DYNAMIC_BITS:
            raise MethodError(f"{where}.ranges: {self.ranges} takes activations of {DYNAMIC_BITS} bits")

    def check_model(self, model: nn.Module, batches: Batches, context: Context) -> None:
        super().check_model(model, batches, context)
        self._check_layers(model, context.where)

    def _check_layers(self, model: nn.Module, where: str) -> None:
        """Raise MethodError where ``layers`` gives inputs with ranges that aren't static another width."""
        if self.ranges == "static":
            return
        skip = [] if self.skip == "auto" else self.skip
        for name, layer in model.named_modules():
            if not isinstance(layer, nn.Linear) or any(fnmatchcase(name, pattern) for pattern in skip):
                continue
            spec = self.for_layer(name).activation_spec(layer)
            if spec is not None and spec.bits != DYNAMIC_BITS:
                raise MethodError(
                    f"{where}.layers: {name} gets activations of {spec.bits} bits, ranges: {self.ranges} takes those "
                    f"of {DYNAMIC_BITS}; give it weight_bits"
                )

    def plan(self, model: nn.Module, batches: Batches, context: Context) -> Plan:
        self._check_layers(model, context.where)
        if self.ranges != "auto":
            return super().plan(model, batches, context)
        self.check(context.where)
        kinds = {"static": replace(self, ranges="static"), "dynamic": replace(self, ranges="dynamic")}
        return dynamic_ranges.plan(kinds, model, batches, context)
