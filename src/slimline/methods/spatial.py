"""Low-rank factorization of k×k convolutions into a column and a row kernel, activation-aware.

    W [O × I × k_h × k_w] ≈ Σ_r H_r ∘ V_r;   V [R × I × k_h × 1], H [O × R × 1 × k_w]

(Jaderberg, Vedaldi & Zisserman 2014, arXiv:1405.3866.) With rows (o, l) and columns (i, k) the kernel is one matrix
[O·k_w × I·k_h], so its SVD is the best of each rank R. The columns are whitened by the channels' covariance
C = E[x xᵀ] = L Lᵀ at each of the k_h heights (neighbouring rows are taken as uncorrelated): (W_kl L) is factorized,
V multiplied by L⁻¹.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from slimline.factorization import sequences, whitening
from slimline.factorization.plan import LowRank, is_dense_kernel
from slimline.method import Edit


@dataclass(frozen=True)
class Spatial(LowRank):
    """Dense k×k convolutions become a k×1 and a 1×k."""

    name: ClassVar[str] = "spatial"
    kinds: ClassVar[str] = "a dense convolution of several rows and columns"

    @staticmethod
    def apply(model: nn.Module, edit: Edit) -> nn.Module:
        return sequences.apply(model, edit, Spatial.structure)

    @staticmethod
    def takes(layer: nn.Module) -> bool:
        return is_dense_kernel(layer) and min(cast(nn.Conv2d, layer).kernel_size) > 1

    @staticmethod
    def spectra(layer: nn.Module, covariance: Tensor) -> list[Tensor]:
        return [torch.linalg.svdvals(matrix(cast(Tensor, layer.weight), whitening.root(covariance)))]

    @staticmethod
    def structure(layer: nn.Module, ranks: list[int]) -> nn.Sequential:
        """Return Sequential(V, H); each carries stride, padding and dilation of its own axis."""
        conv = cast(nn.Conv2d, layer)
        (rank,) = ranks
        (kh, kw), (sh, sw), (dh, dw) = conv.kernel_size, conv.stride, conv.dilation
        high, wide = (conv.padding, conv.padding) if isinstance(conv.padding, str) else _split(conv.padding)
        return nn.Sequential(
            nn.Conv2d(conv.in_channels, rank, (kh, 1), (sh, 1), high, (dh, 1), bias=False),
            nn.Conv2d(rank, conv.out_channels, (1, kw), (1, sw), wide, (1, dw), bias=conv.bias is not None),
        )

    @staticmethod
    def weights(layer: nn.Module, ranks: list[int], covariance: Tensor) -> list[Tensor]:
        return list(factors(cast(Tensor, layer.weight).detach(), covariance, ranks[0]))


def matrix(weight: Tensor, lower: Tensor) -> Tensor:
    """Return the whitened kernel as a float64 matrix [O·k_w × I·k_h]."""
    return whitening.whitened(weight, lower).permute(0, 3, 1, 2).flatten(2).flatten(0, 1)


def factors(weight: Tensor, covariance: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return float32 V [R × I × k_h × 1] and H [O × R × 1 × k_w]."""
    out, into, kh, kw = weight.shape
    lower = whitening.root(covariance)
    u, s, vt = torch.linalg.svd(matrix(weight, lower), full_matrices=False)
    root = s[:rank].sqrt()
    v = (root[:, None] * vt[:rank]).reshape(rank, into, kh)
    v = torch.linalg.solve_triangular(lower, v.transpose(1, 2), upper=False, left=False).transpose(1, 2)
    h = (u[:, :rank] * root).reshape(out, kw, rank).transpose(1, 2)
    return v[..., None].float(), h[:, :, None].float()


def _split(padding: tuple[int, ...]) -> tuple[tuple[int, int], tuple[int, int]]:
    return (padding[0], 0), (0, padding[1])
