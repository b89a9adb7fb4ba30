"""Layers for operations that methods must be able to see, and what a layer costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class Add(nn.Module):
    """The residual sum a + b of two tensors of the same shape, as a layer (a plain ``a + b`` in ``forward`` is
    invisible to methods), so that its inputs can be quantized.
    """

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b


@torch.inference_mode()
def macs(model: nn.Module, run: Callable[[], Any]) -> dict[str, int]:
    """Return the multiply-adds of each convolution and linear layer, by name, while ``run()`` puts one row through."""
    found: dict[str, int] = {}

    def count(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(module: nn.Module, _inputs: Any, out: Tensor) -> None:
            weight = module.get_parameter("weight")
            found[name] = found.get(name, 0) + out.numel() // weight.shape[0] * weight.numel()

        return hook

    layers = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(count(name)) for name, layer in layers]
    try:
        model.eval()
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return found
