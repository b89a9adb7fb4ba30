"""What a model weighs: parameters and multiply-adds, counted on the torch model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


def count_params(model: nn.Module) -> int:
    """Return the number of trained values (scales and zero points of quantizers are not among them)."""
    return sum(parameter.numel() for parameter in model.parameters())


@torch.inference_mode()
def count_macs(model: nn.Module, signature: Mapping[str, Any]) -> int:
    """Return the multiply-adds of convolutions and linear layers for one row (batch 1)."""
    total = 0

    def count(module: nn.Module, _args: Any, out: Tensor) -> None:
        nonlocal total
        weight = module.weight
        assert isinstance(weight, Tensor)  # noqa: S101  (Conv2d and Linear alone are hooked)
        positions = out.numel() // weight.shape[0]
        total += positions * weight.numel()

    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    sizes = [[1 if isinstance(each, str) else each for each in spec["shape"]] for spec in signature["inputs"]]
    arrays = {
        spec["name"]: torch.zeros(size, dtype=getattr(torch, spec["dtype"]))
        for spec, size in zip(signature["inputs"], sizes, strict=True)
    }
    try:
        model.eval()
        model(*arrays.values()) if len(arrays) == 1 else model(**arrays)
    finally:
        for hook in hooks:
            hook.remove()
    return total
