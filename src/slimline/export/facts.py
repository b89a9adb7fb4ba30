"""What a model weighs: parameters and multiply-adds, counted on the torch model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from slimline import layers
from slimline.quantizers import learned_scales
from slimline.task import call


def count_params(model: nn.Module) -> int:
    """Return the number of trained values (scales and zero points of quantizers are not among them)."""
    scales = sum(scale.numel() for scale in learned_scales(model))
    return sum(parameter.numel() for parameter in model.parameters()) - scales


def count_macs(model: nn.Module, signature: Mapping[str, Any]) -> int:
    """Return the multiply-adds of convolutions and linear layers for one row (batch 1)."""
    row = {}
    for spec in signature["inputs"]:
        size = [1 if isinstance(each, str) else each for each in spec["shape"]]
        row[spec["name"]] = torch.zeros(size, dtype=getattr(torch, spec["dtype"]))
    return sum(layers.macs(model, lambda: call(model, row)).values())
