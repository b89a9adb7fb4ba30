"""What a model weighs: parameters and multiply-adds, counted on the torch model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from slimline import layers
from slimline.quantization.quantizers import learned_scales, quantizers
from slimline.task import call


def count_params(model: nn.Module) -> int:
    """Return the number of trained values (scales and zero points of quantizers are not among them)."""
    scales = sum(scale.numel() for scale in learned_scales(model))
    return sum(parameter.numel() for parameter in model.parameters()) - scales


def variant(model: nn.Module) -> str:
    """Return the number formats of what is quantized: fp32, int8, w4a8, w4a32 (activations in float), float16, w2-8a8.

    After w stand the weights' bits, after a the activations', the least and the most where layers differ. Layers left
    alone don't count.
    """
    weights: set[int] = set()
    activations: set[int] = set()
    floats: set[str] = set()
    for name, quantizer in quantizers(model).items():
        spec = quantizer.spec
        if spec.is_float:
            floats.add(spec.scheme)
        else:
            (weights if name.endswith("weight_quantizer") else activations).add(spec.bits)
    integers = [f"w{_ends(weights)}a{_ends(activations)}"] if weights or activations else []
    integers = ["int8"] if weights == activations == {8} else integers
    return "+".join([*integers, *sorted(floats)]) or "fp32"


def _ends(bits: set[int]) -> str:
    return "-".join(map(str, sorted({min(bits), max(bits)}))) if bits else "32"


def count_macs(model: nn.Module, signature: Mapping[str, Any]) -> int:
    """Return the multiply-adds of convolutions and linear layers for one row (batch 1)."""
    return sum(macs_by_layer(model, signature).values())


def macs_by_layer(model: nn.Module, signature: Mapping[str, Any]) -> dict[str, int]:
    """Return the multiply-adds of each convolution and linear layer for one row, at its greatest length."""
    row, most = {}, signature.get("axes", {})
    for spec in signature["inputs"]:
        size = [most.get(each, 1) if isinstance(each, str) else each for each in spec["shape"]]
        row[spec["name"]] = torch.zeros(size, dtype=getattr(torch, spec["dtype"]))
    return layers.macs(model, lambda: call(model, row))
