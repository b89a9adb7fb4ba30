"""Low-rank factorization of k×k convolutions: Tucker-2, activation-aware.

    W [O × I × k × k],  W_p ≈ B·G_p·A at each kernel position p;  A [r_in × I], G [r_out × r_in × k × k], B [O × r_out]

which runs as a 1×1, a k×k and a 1×1 convolution (Kim et al. 2016, arXiv:1511.06530). A and B are the leading
singular vectors of the two channel unfoldings, refined by alternating (HOOI: De Lathauwer, De Moor & Vandewalle 2000).
As in ``svd`` the input mode is whitened first: with C = E[x xᵀ] = L Lᵀ over channels, W_p L is factorized and A is
multiplied by L⁻¹, so that the error is measured where the data is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from slimline.factorization import sequences, whitening
from slimline.factorization.plan import LowRank, is_dense_kernel
from slimline.method import Edit

SWEEPS = 5


@dataclass(frozen=True)
class Tucker2(LowRank):
    """Dense k×k convolutions become three. Ranks are (input, output)."""

    name: ClassVar[str] = "tucker2"
    kinds: ClassVar[str] = "a dense k×k convolution"
    ratios: list[Annotated[float, Field(gt=0, lt=1)]] = field(default_factory=lambda: [0.25, 0.375, 0.5])

    @staticmethod
    def apply(model: nn.Module, edit: Edit) -> nn.Module:
        return sequences.apply(model, edit, Tucker2.structure)

    @staticmethod
    def takes(layer: nn.Module) -> bool:
        return is_dense_kernel(layer)

    @staticmethod
    def spectra(layer: nn.Module, covariance: Tensor) -> list[Tensor]:
        weight = whitening.whitened(cast(Tensor, layer.weight), whitening.root(covariance))
        return [torch.linalg.svdvals(mode.flatten(1)) for mode in (weight.transpose(0, 1), weight)]

    @staticmethod
    def structure(layer: nn.Module, ranks: list[int]) -> nn.Sequential:
        """Return Sequential(A, G, B); G carries stride, padding and dilation."""
        conv = cast(nn.Conv2d, layer)
        into, out = ranks
        return nn.Sequential(
            nn.Conv2d(conv.in_channels, into, 1, bias=False),
            nn.Conv2d(into, out, conv.kernel_size, conv.stride, conv.padding, conv.dilation, bias=False),  # type: ignore[arg-type]
            nn.Conv2d(out, conv.out_channels, 1, bias=conv.bias is not None),
        )

    @staticmethod
    def weights(layer: nn.Module, ranks: list[int], covariance: Tensor) -> list[Tensor]:
        a, core, b = factors(cast(Tensor, layer.weight).detach(), covariance, ranks[0], ranks[1])
        return [a[:, :, None, None], core, b[:, :, None, None]]


def factors(weight: Tensor, covariance: Tensor, rank_in: int, rank_out: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return float32 A [r_in × I], G [r_out × r_in × k × k] and B [O × r_out]."""
    lower = whitening.root(covariance)
    white = whitening.whitened(weight, lower)
    u_in = _leading(white.transpose(0, 1), rank_in)  # I × r_in
    for _ in range(SWEEPS):
        u_out = _leading(torch.einsum("oikl,ir->orkl", white, u_in), rank_out)  # O × r_out
        u_in = _leading(torch.einsum("oikl,or->irkl", white, u_out), rank_in)
    core = torch.einsum("oikl,or,is->rskl", white, u_out, u_in)
    a = torch.linalg.solve_triangular(lower, u_in.T, upper=False, left=False)
    return a.float(), core.float(), u_out.float()


def _leading(tensor: Tensor, rank: int) -> Tensor:
    """Return the ``rank`` leading left singular vectors of the first unfolding."""
    u: Tensor = torch.linalg.svd(tensor.flatten(1), full_matrices=False)[0]
    return u[:, :rank]
