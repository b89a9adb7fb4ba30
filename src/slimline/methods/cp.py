"""Low-rank factorization of k×k convolutions: canonical polyadic (CP), activation-aware.

    W[o, i, k, l] ≈ Σ_r D[o, r] · V[k, r] · H[l, r] · A[i, r]

which runs as a 1×1 (A), a k×1 and a 1×k depthwise (V, H) and a 1×1 convolution (D) (Lebedev et al. 2015,
arXiv:1412.6553). The factors are found by alternating least squares: with the other three fixed, each is a linear
problem whose Gram matrix is the elementwise product of theirs (Kolda & Bader 2009, SIAM Review 51, §3.4). The input
mode is whitened as in ``tucker2``: W·L is factorized, A multiplied by L⁻¹. ALS starts from leading singular vectors,
filled up with seeded noise, and its normal equations carry a small ridge, since CP problems are often ill-posed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from slimline.factorization import sequences, whitening
from slimline.factorization.plan import LowRank, is_dense_kernel
from slimline.method import Edit

SWEEPS = 60
RIDGE = 1e-6


@dataclass(frozen=True)
class Cp(LowRank):
    """Dense k×k convolutions become four, the middle two depthwise. Full rank is taken as the larger channel count."""

    name: ClassVar[str] = "cp"
    kinds: ClassVar[str] = "a dense convolution of several rows and columns"

    @staticmethod
    def apply(model: nn.Module, edit: Edit) -> nn.Module:
        return sequences.apply(model, edit, Cp.structure)

    @staticmethod
    def takes(layer: nn.Module) -> bool:
        return is_dense_kernel(layer) and min(cast(nn.Conv2d, layer).kernel_size) > 1

    @staticmethod
    def spectra(layer: nn.Module, covariance: Tensor) -> list[Tensor]:
        """Return the singular values of the longer channel unfolding: CP has no spectrum of its own."""
        white = whitening.whitened(cast(Tensor, layer.weight), whitening.root(covariance))
        unfolded = white if white.shape[0] >= white.shape[1] else white.transpose(0, 1)
        return [torch.linalg.svdvals(unfolded.flatten(1))]

    @staticmethod
    def structure(layer: nn.Module, ranks: list[int]) -> nn.Sequential:
        """Return Sequential(A, V, H, D); V and H carry stride, padding and dilation of their own axis."""
        conv = cast(nn.Conv2d, layer)
        (rank,) = ranks
        (kh, kw), (sh, sw), (dh, dw) = conv.kernel_size, conv.stride, conv.dilation
        padding = conv.padding
        high, wide = (padding, padding) if isinstance(padding, str) else ((padding[0], 0), (0, padding[1]))
        return nn.Sequential(
            nn.Conv2d(conv.in_channels, rank, 1, bias=False),
            nn.Conv2d(rank, rank, (kh, 1), (sh, 1), high, (dh, 1), groups=rank, bias=False),
            nn.Conv2d(rank, rank, (1, kw), (1, sw), wide, (1, dw), groups=rank, bias=False),
            nn.Conv2d(rank, conv.out_channels, 1, bias=conv.bias is not None),
        )

    @staticmethod
    def weights(layer: nn.Module, ranks: list[int], covariance: Tensor) -> list[Tensor]:
        d, a, v, h = factors(cast(Tensor, layer.weight).detach(), covariance, ranks[0])
        return [a.T[:, :, None, None], v.T[:, None, :, None], h.T[:, None, None], d[:, :, None, None]]


def factors(weight: Tensor, covariance: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return float32 D [O × R], A [I × R], V [k_h × R] and H [k_w × R]."""
    lower = whitening.root(covariance)
    white = whitening.whitened(weight, lower)
    generator = torch.Generator().manual_seed(0)
    modes = [_start(white.movedim(mode, 0).flatten(1), rank, generator) for mode in range(4)]
    for _ in range(SWEEPS):
        for mode in range(4):
            others = [modes[each] for each in range(4) if each != mode]
            gram = torch.stack([each.T @ each for each in others]).prod(0)
            right = torch.einsum("xabc,ar,br,cr->xr", white.movedim(mode, 0), *others)
            ridge = RIDGE * gram.diagonal().mean() * torch.eye(rank, dtype=gram.dtype)
            modes[mode] = torch.linalg.solve(gram + ridge, right.T).T
        modes = _balanced(modes)
    d, a, v, h = modes
    a = torch.linalg.solve_triangular(lower, a.T, upper=False, left=False).T
    return d.float(), a.float(), v.float(), h.float()


def _balanced(modes: list[Tensor]) -> list[Tensor]:
    """Give the four vectors of each term the same length; their product stays."""
    lengths = torch.stack([mode.norm(dim=0).clamp(min=1e-12) for mode in modes])
    mean = lengths.log().mean(0).exp()
    return [mode / length * mean for mode, length in zip(modes, lengths, strict=True)]


def _start(unfolded: Tensor, rank: int, generator: torch.Generator) -> Tensor:
    """Return the leading left singular vectors [mode × rank], missing ones as noise of the same length."""
    u = torch.linalg.svd(unfolded, full_matrices=False)[0][:, :rank]
    missing = rank - u.shape[1]
    noise = torch.randn(u.shape[0], missing, generator=generator, dtype=u.dtype)
    return torch.cat([u, noise / noise.norm(dim=0).clamp(min=1e-12)], dim=1)
