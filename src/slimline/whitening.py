"""Whitening: weights measured where the data is, so that what is cut off is what the layer's outputs lose.

With C = E[x xᵀ] = L Lᵀ over a layer's inputs, E‖(W − Ŵ) x‖² = ‖(W − Ŵ) L‖²_F: factorizing W·L in place of W keeps what
real inputs need (Wang et al. 2024, SVD-LLM, arXiv:2403.07378).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from slimline.method import Batches
from slimline.quantizers import Quantizer
from slimline.task import call


@torch.no_grad()
def covariances(model: nn.Module, names: Sequence[str], batches: Batches) -> dict[str, Tensor]:
    """Return E[x xᵀ] [channels × channels, float64] of each named layer's input over calibration data and positions."""
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def see(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            x = args[0].detach().double()
            quantizer = getattr(module, "input_quantizer", None)
            if isinstance(quantizer, Quantizer):
                x = quantizer(args[0]).double()
            axis = 1 if isinstance(module, nn.Conv2d) else -1
            rows = x.movedim(axis, -1).flatten(0, -2)
            sums[name] = sums.get(name, torch.zeros((), dtype=torch.float64)) + rows.T @ rows
            counts[name] = counts.get(name, 0) + len(rows)

        return hook

    hooks = [model.get_submodule(name).register_forward_pre_hook(see(name)) for name in names]
    model.eval()
    try:
        for inputs, _ in batches():
            call(model, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: sums[name] / counts[name] for name in names if name in sums}


def root(covariance: Tensor) -> Tensor:
    """Return L with L Lᵀ = covariance + εI: an error of W·L is the error of the layer's output."""
    n = len(covariance)
    ridge = 1e-6 * covariance.diagonal().mean().clamp(min=1e-12)
    lower: Tensor = torch.linalg.cholesky(covariance + ridge * torch.eye(n, dtype=covariance.dtype))
    return lower


def whitened(weight: Tensor, lower: Tensor) -> Tensor:
    """Return W_p·L at each kernel position p, float64 [O × I × k × k]."""
    return torch.einsum("oikl,ij->ojkl", weight.detach().double(), lower)
