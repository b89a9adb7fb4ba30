"""What a model weighs: parameters and multiply-adds, counted on the torch model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from slimline import layers
from slimline.task import call


def count_params(model: nn.Module) -> int:
    """Return the number of trained values (scales and zero points of quantizers are not among them)."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: nn.Module, signature: Mapping[str, Any]) -> int:
    """Return the multiply-adds of convolutions and linear layers for one row (batch 1)."""
    return sum(macs_by_layer(model, signature).values())


def macs_by_layer(model: nn.Module, signature: Mapping[str, Any]) -> dict[str, int]:
    """Return the multiply-adds of each convolution and linear layer for one row."""
    row = {}
    for spec in signature["inputs"]:
        size = [1 if isinstance(each, str) else each for each in spec["shape"]]
        row[spec["name"]] = torch.zeros(size, dtype=getattr(torch, spec["dtype"]))
    return layers.macs(model, lambda: call(model, row))
