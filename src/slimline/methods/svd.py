"""Low-rank factorization of linear layers and 1×1 convolutions by activation-aware SVD.

    W [out × in] ≈ B·A,  A [r × in], B [out × r];   pays only if r < out·in / (out + in)

Plain SVD keeps what is large in W. What counts is the output W x on real inputs: with C = E[x xᵀ] = L Lᵀ,
E‖(W − Ŵ) x‖² = ‖(W − Ŵ) L‖²_F, so the SVD of W·L = U Σ Vᵀ is cut: B = U_r Σ_r^½, A = Σ_r^½ V_rᵀ L⁻¹.
The error is the tail of Σ (Eckart & Young 1936; whitening as in Wang et al. 2024, SVD-LLM, arXiv:2403.07378).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from slimline.factorization import sequences, whitening
from slimline.factorization.plan import LowRank
from slimline.method import Edit


@dataclass(frozen=True)
class Svd(LowRank):
    """Linear layers and dense 1×1 convolutions become two."""

    name: ClassVar[str] = "svd"
    kinds: ClassVar[str] = "a linear layer or a dense 1×1 convolution"

    @staticmethod
    def apply(model: nn.Module, edit: Edit) -> nn.Module:
        return sequences.apply(model, edit, Svd.structure)

    @staticmethod
    def takes(layer: nn.Module) -> bool:
        return isinstance(layer, nn.Linear) or (
            isinstance(layer, nn.Conv2d)
            and layer.kernel_size == (1, 1)
            and layer.groups == 1
            and layer.padding in {(0, 0), 0}
        )

    @staticmethod
    def spectra(layer: nn.Module, covariance: Tensor) -> list[Tensor]:
        return [torch.linalg.svdvals(matrix(layer).double() @ whitening.root(covariance))]

    @staticmethod
    def structure(layer: nn.Module, ranks: list[int]) -> nn.Sequential:
        """Return Sequential(A, B); A carries the stride."""
        (rank,) = ranks
        if isinstance(layer, nn.Conv2d):
            return nn.Sequential(
                nn.Conv2d(layer.in_channels, rank, 1, layer.stride, bias=False),  # type: ignore[arg-type]
                nn.Conv2d(rank, layer.out_channels, 1, bias=layer.bias is not None),
            )
        layer = cast(nn.Linear, layer)
        return nn.Sequential(
            nn.Linear(layer.in_features, rank, bias=False),
            nn.Linear(rank, layer.out_features, bias=layer.bias is not None),
        )

    @staticmethod
    def weights(layer: nn.Module, ranks: list[int], covariance: Tensor) -> list[Tensor]:
        a, b = factors(matrix(layer), covariance, ranks[0])
        tail = (1, 1) if isinstance(layer, nn.Conv2d) else ()
        return [a.reshape(*a.shape, *tail), b.reshape(*b.shape, *tail)]


def matrix(layer: nn.Module) -> Tensor:
    """Return the layer's weight as a matrix [out × in]."""
    return cast(Tensor, layer.weight).detach().flatten(1)


def factors(weight: Tensor, covariance: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return float32 A [rank × in] and B [out × rank] with B·A closest to ``weight`` on inputs of this covariance."""
    lower = whitening.root(covariance)
    u, s, vt = torch.linalg.svd(weight.double() @ lower, full_matrices=False)
    root = s[:rank].sqrt()
    b = u[:, :rank] * root
    a = torch.linalg.solve_triangular(lower, root[:, None] * vt[:rank], upper=False, left=False)
    return a.float(), b.float()
