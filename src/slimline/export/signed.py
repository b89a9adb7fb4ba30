"""The same quantizers on the grid that TensorRT takes: int8, symmetric, zero point 0.

An asymmetric range [low, high] becomes the symmetric one that holds it: scale = max(|low|, |high|) / 127. After a ReLU
that halves the number of steps, so what comes out must be measured again.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from slimline.quantization import quantizers
from slimline.quantization.grids import Spec
from slimline.quantization.quantizers import Quantizer

SMALLEST_HALF = 2.0**-24


class Signed(Quantizer):
    """A symmetric int8 quantizer that keeps its input's type; with ``half_weight`` float16 comes out of float32."""

    half_weight = False

    def _symbolic(self, x: Tensor) -> Tensor:
        spec, zero_point = self.spec, self.zero_point
        attributes: dict[str, Any] = {} if spec.axis is None else {"axis": spec.axis}
        q = torch.onnx.ops.symbolic(
            "QuantizeLinear", (x, self.scale.to(x.dtype), zero_point), attributes, dtype=torch.int8, shape=x.shape
        )
        made = torch.float16 if self.half_weight else x.dtype
        return torch.onnx.ops.symbolic(
            "DequantizeLinear", (q, self.scale.to(made), zero_point), attributes, dtype=made, shape=x.shape
        )


@torch.no_grad()
def requantize(model: nn.Module) -> tuple[nn.Module, int]:
    """Return a copy of ``model`` whose quantizers are all Signed, and how many had another grid before.

    Weights of 16-bit floats become plain ones of the same values.

    Activations keep their trained range, one for the whole tensor. Weights get a scale per output channel: the one
    they have where int8 holds their integers; else what they are rounded to is fitted anew (the weights themselves
    where their grid is as fine as int8 and follows them).
    """
    signed = copy.deepcopy(model).eval()
    changed = 0
    for name, old in quantizers.quantizers(signed).items():
        layer, _, role = name.rpartition(".")
        if old.spec.is_float:
            stored = signed.get_submodule(layer)
            stored.get_parameter("weight").copy_(old(stored.get_parameter("weight")))
            quantizers.replace(signed, {layer: quantizers.plain_layer(stored)})
            continue
        if role == "weight_quantizer":
            weight = signed.get_submodule(layer).get_parameter("weight")
            new = Signed(Spec(8, "symmetric", axis=0), weight.shape[0])
            if old.spec.bits < 8 or old.spec.learned:
                weight.copy_(old(weight))
            if old.spec.scheme == "symmetric" and old.spec.bits <= 8 and old.spec.block is None:
                new.scale.copy_(old.steps().expand_as(new.scale))
            else:
                new.fit(weight)
        else:
            new = Signed(Spec(8, "symmetric", smooth=old.spec.smooth), old.factor.numel() if old.spec.smooth else None)
            if old.spec.smooth:
                new.factor.copy_(old.factor)
            low, high = ((end - old.zero_point) * old.steps() for end in (old.spec.qmin, old.spec.qmax))
            new.set_range(low.min(), high.max())
        same = replace(old.spec, learned=False, dynamic=False) == new.spec
        if same:
            new.scale.copy_(old.steps())
        changed += not same
        quantizers.replace(signed, {name: new})
    return signed, changed


def half(model: nn.Module) -> nn.Module:
    """Return a copy of ``model`` in float16 behind float32 inputs and outputs; its quantizers must be Signed.

    Integer weights are still made from the float32 ones, on scales that float16 holds.
    """
    halved = copy.deepcopy(model).half()
    for name, quantizer in quantizers.quantizers(model).items():
        own = halved.get_submodule(name)
        assert isinstance(own, Signed)  # noqa: S101  (the caller requantized)
        own.scale = quantizer.scale.half().float().clamp(min=SMALLEST_HALF)
        layer, _, role = name.rpartition(".")
        if role == "weight_quantizer":
            own.half_weight = True
            halved.get_submodule(layer).register_parameter("weight", model.get_submodule(layer).get_parameter("weight"))
    halved.register_forward_pre_hook(_to_half)
    halved.register_forward_hook(_to_float)
    return halved


def _to_half(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(each.half() if each.is_floating_point() else each for each in inputs)


def _to_float(_module: nn.Module, _inputs: tuple[Tensor, ...], out: Tensor) -> Tensor:
    return out.float()
