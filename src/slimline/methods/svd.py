"""Low-rank factorization of linear layers and 1×1 convolutions by activation-aware SVD.

    W [out × in] ≈ B·A,  A [r × in], B [out × r];   pays only if r < out·in / (out + in)

Plain SVD keeps what is large in W. What counts is the output W x on real inputs: with C = E[x xᵀ] = L Lᵀ,
E‖(W − Ŵ) x‖² = ‖(W − Ŵ) L‖²_F, so the SVD of W·L = U Σ Vᵀ is cut: B = U_r Σ_r^½, A = Σ_r^½ V_rᵀ L⁻¹.
The error is the tail of Σ (Eckart & Young 1936; whitening as in Wang et al. 2024, SVD-LLM, arXiv:2403.07378).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from slimline import factorization
from slimline.method import Batches, Context, Edit, Method, Plan


@dataclass(frozen=True)
class Svd(Method):
    """``ratios`` of the full rank are tried, rounded to ``multiple``; see ``slimline.factorization`` for the choice."""

    ratios: list[Annotated[float, Field(gt=0, lt=1)]] = field(default_factory=lambda: [0.125, 0.25, 0.5])
    multiple: Annotated[int, Field(ge=1)] = 8
    min_gain: Annotated[float, Field(ge=1)] = 1.1
    max_drop: Annotated[float, Field(ge=0, le=1)] = 0.01

    def plan(self, model: nn.Module, batches: Batches, context: Context) -> Plan:
        candidates = {}
        for name, layer in model.named_modules():
            if is_matrix(layer):
                out, into = matrix(layer).shape
                options = factorization.candidate_ranks([min(out, into)], self.ratios, self.multiple)
                candidates[name] = [ranks for ranks in options if ranks[0] < out * into / (out + into)]
        return factorization.plan(
            "svd", model, batches, context, candidates=candidates, structure=structure, weights=weights,
            min_gain=self.min_gain, max_drop=self.max_drop,
        )  # fmt: skip

    @staticmethod
    def apply(model: nn.Module, edit: Edit) -> nn.Module:
        return factorization.apply(model, edit, structure)


def is_matrix(layer: nn.Module) -> bool:
    """Return whether a layer multiplies by one matrix: Linear, or a dense 1×1 convolution."""
    return isinstance(layer, nn.Linear) or (
        isinstance(layer, nn.Conv2d)
        and layer.kernel_size == (1, 1)
        and layer.groups == 1
        and layer.padding in {(0, 0), 0}
    )


def matrix(layer: nn.Module) -> Tensor:
    """Return the layer's weight as a matrix [out × in]."""
    return cast(Tensor, layer.weight).detach().flatten(1)


def structure(layer: nn.Module, ranks: list[int]) -> nn.Sequential:
    """Return Sequential(A, B) of rank ``ranks[0]``, its weights unset; B carries the bias, A the stride."""
    (rank,) = ranks
    if isinstance(layer, nn.Conv2d):
        return nn.Sequential(
            nn.Conv2d(layer.in_channels, rank, 1, layer.stride, bias=False),  # type: ignore[arg-type]
            nn.Conv2d(rank, layer.out_channels, 1, bias=layer.bias is not None),
        )
    layer = cast(nn.Linear, layer)
    return nn.Sequential(
        nn.Linear(layer.in_features, rank, bias=False), nn.Linear(rank, layer.out_features, bias=layer.bias is not None)
    )


def weights(layer: nn.Module, ranks: list[int], covariance: Tensor) -> list[Tensor]:
    """Return the weights of A and B in the layer's own shape."""
    a, b = factors(matrix(layer), covariance, ranks[0])
    tail = (1, 1) if isinstance(layer, nn.Conv2d) else ()
    return [a.reshape(*a.shape, *tail), b.reshape(*b.shape, *tail)]


def factors(weight: Tensor, covariance: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return float32 A [rank × in] and B [out × rank] with B·A closest to ``weight`` on inputs of this covariance."""
    lower = factorization.whitening(covariance)
    u, s, vt = torch.linalg.svd(weight.double() @ lower, full_matrices=False)
    root = s[:rank].sqrt()
    b = u[:, :rank] * root
    a = torch.linalg.solve_triangular(lower, root[:, None] * vt[:rank], upper=False, left=False)
    return a.float(), b.float()
