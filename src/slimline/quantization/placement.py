"""Where quantizers stand: put on the layers that an edit lists, and found by the layer that carries them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch
from torch import nn

from slimline.quantization.folding import rest
from slimline.quantization.grids import spec_of
from slimline.quantization.quantizers import plain_layer, quantize_layer, quantizers, replace


def place(model: nn.Module, data: Mapping[str, Any]) -> nn.Module:
    """Remove the folded BatchNorms, give their convolutions a bias, and put quantizers on the listed layers.

    ``data`` is that of a quantize method's edit. Quantizers are new and have no ranges.
    """
    for conv_name, norm_name in data["fold"]:
        conv = cast(nn.Conv2d, model.get_submodule(conv_name))
        if conv.bias is None:
            conv.bias = nn.Parameter(torch.zeros(conv.out_channels))
        replace(model, {norm_name: rest(model.get_submodule(norm_name))})
    for name in data.get("bias", []):
        unbiased = model.get_submodule(name)
        unbiased.bias = nn.Parameter(torch.zeros(len(unbiased.get_parameter("weight"))))
    for name in data["layers"]:
        spec = {**data, **data.get("own", {}).get(name, {})}
        activation = spec_of(spec["activation"]) if spec["activation"] else None
        layer = plain_layer(model.get_submodule(name))
        if activation is None and not isinstance(layer, nn.Conv2d | nn.Linear | nn.Embedding):
            continue
        replace(model, {name: quantize_layer(layer, spec_of(spec["weight"]), activation)})
    return model


def bare_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return every layer by name, without quantizers."""
    return {name: plain_layer(module) for name, module in model.named_modules() if name}


def layer_of(quantizer: str) -> str:
    """Return the name of the layer that carries a quantizer of this name."""
    return quantizer.rpartition(".")[0].removesuffix(".quantizers")


def kept_layers(model: nn.Module, layers: Iterable[str]) -> list[str]:
    """Return the layers beside ``layers`` that keep the quantizers of an earlier quantization."""
    return list(dict.fromkeys(name for each in quantizers(model) if (name := layer_of(each)) not in layers))
