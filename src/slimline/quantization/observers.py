"""Observers: they see the values that pass a quantizer during calibration, then name the range that its grid spans.

minmax          the smallest and the largest value
moving-average  lowₜ = m·lowₜ₋₁ + (1 − m)·min xₜ over batches t, high alike     (Jacob et al. 2018, arXiv:1712.05877)
percentile      the quantiles (100 − p)% and p%                                  (Wu et al. 2020, arXiv:2004.09602)
entropy         the threshold T whose clipped, rounded histogram has the least KL divergence from the whole
                                                            (Migacz 2017, "8-bit Inference with TensorRT", GTC)
mse             α·[min, max] with the least Σ(x − x̂)² over α      (Nagel et al. 2021, arXiv:2106.08295, section 3.1)
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from slimline.errors import MethodError
from slimline.quantization.grids import Spec, fake_quantize, scale_and_zero_point

Range = tuple[Tensor, Tensor]
BINS = 2048
KEPT = 8192  # values a batch that ``mse`` keeps
SHRINK = [1 - step / 100 for step in range(90)]


class Observer(Protocol):
    """Sees the tensors that pass a quantizer during calibration, then names their range."""

    def see(self, x: Tensor) -> None:
        """Take in one batch of values."""

    def range(self, spec: Spec) -> Range:
        """Return (low, high), each a scalar tensor, for a grid of ``spec``.

        Raises MethodError when nothing was seen, or a value that is not finite.
        """


def checked(low: Tensor, high: Tensor) -> Range:
    """Return the range, or raise MethodError where there is none."""
    if low == float("inf"):
        raise MethodError("calibration saw no data")
    if not (low.isfinite() and high.isfinite()):
        raise MethodError("calibration saw values that are not finite")
    return low, high


class MinMax:
    """The smallest and largest value seen."""

    def __init__(self) -> None:
        self.low = torch.tensor(float("inf"))
        self.high = torch.tensor(float("-inf"))

    def see(self, x: Tensor) -> None:
        self.low = torch.minimum(self.low, x.min())
        self.high = torch.maximum(self.high, x.max())

    def range(self, spec: Spec) -> Range:
        del spec
        return checked(self.low, self.high)


class MovingAverage(MinMax):
    """Each batch's extremes, averaged with weights that fall by ``momentum`` a batch: a stray batch counts little."""

    def __init__(self, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum

    def see(self, x: Tensor) -> None:
        if self.low == float("inf"):
            super().see(x)
            return
        self.low = self.momentum * self.low + (1 - self.momentum) * x.min()
        self.high = self.momentum * self.high + (1 - self.momentum) * x.max()


class Percentile:
    """The quantiles (100 − p)% and p% of the values: the mean over batches of each batch's own quantiles.

    Clipping the rarest values gives all others a finer step (Wu et al. 2020, arXiv:2004.09602, section 3.4).
    """

    def __init__(self, percentile: float) -> None:
        self.percentile = percentile
        self.lows: list[Tensor] = []
        self.highs: list[Tensor] = []

    def see(self, x: Tensor) -> None:
        values = x.flatten()
        rank = max(1, round(values.numel() * (1 - self.percentile / 100)))
        self.highs.append(values.topk(rank).values[-1])
        self.lows.append(values.topk(rank, largest=False).values[-1])

    def range(self, spec: Spec) -> Range:
        del spec
        if not self.lows:
            raise MethodError("calibration saw no data")
        return checked(torch.stack(self.lows).mean(), torch.stack(self.highs).mean())


class Entropy(MinMax):
    """The threshold T on |x| that loses the least information; the range is [−T, T] within the extremes.

    P is the histogram of |x| up to T with all values above in its last bin, Q the same bins merged into as many levels
    as the grid has on one side, each level's mass spread evenly over its bins that aren't empty. T minimizes KL(P ‖ Q).
    Zeros are left out: every grid holds them exactly.
    """

    def __init__(self) -> None:
        super().__init__()
        self.width = 0.0
        self.counts = torch.zeros(BINS, dtype=torch.float64)

    def see(self, x: Tensor) -> None:
        super().see(x)
        sizes = x[x != 0].abs().double()
        if not len(sizes) or not sizes.isfinite().all():
            return
        self.width = self.width or float(sizes.max()) / BINS
        while self.width * BINS < float(sizes.max()):  # bins twice as wide, so that their number stays
            self.counts = torch.cat([self.counts.reshape(-1, 2).sum(1), torch.zeros(BINS // 2).double()])
            self.width *= 2
        bins = (sizes / self.width).long().clamp(max=BINS - 1)
        self.counts += torch.bincount(bins, minlength=BINS)

    def range(self, spec: Spec) -> Range:
        low, high = checked(self.low, self.high)
        sides = 2 if spec.scheme == "linear" and low < 0 < high else 1
        levels = max(2, (spec.qmax + 1) // sides)
        filled = (self.counts.nonzero().flatten() + 1).tolist()
        ends = [end for end in filled if end > levels][::-4] or filled[-1:] or [BINS]  # the last one is among them
        threshold = self.width * min(ends, key=lambda end: divergence(self.counts, end, levels))
        return low.clamp(min=-threshold), high.clamp(max=threshold)


def divergence(counts: Tensor, bins: int, levels: int) -> float:
    """Return KL(P ‖ Q) of the histogram ``counts`` clipped to its first ``bins`` and merged into ``levels``."""
    p = counts[:bins].clone()  # its last bin isn't empty: T is a value that occurs
    level = torch.arange(bins) * levels // bins
    filled = (p > 0).double()
    sums = torch.zeros(levels, dtype=torch.float64).index_add_(0, level, p)
    sizes = torch.zeros(levels, dtype=torch.float64).index_add_(0, level, filled)
    p[-1] += counts[bins:].sum()
    q = (sums / sizes.clamp(min=1))[level] * filled
    if not q.sum():
        return float("inf")
    p, q = p / p.sum(), (q / q.sum()).clamp(min=1e-12)
    return float(torch.where(p > 0, p * (p / q).log(), torch.zeros_like(p)).sum())


def least_error_range(spec: Spec, values: Tensor) -> Range:
    """Return (low, high), each [scales…], whose grids round ``values`` [scales…, n] with the least squared error.

    They are the extremes of the values that share a scale, shrunk by a factor of their own.
    """
    low, high = values.amin(-1), values.amax(-1)
    best = torch.full_like(low, float("inf"))
    share = torch.ones_like(low)
    for each in SHRINK:
        scale, zero_point = (part[..., None] for part in scale_and_zero_point(spec, low * each, high * each))
        rounded = torch.clamp(torch.round(values / scale), spec.qmin - zero_point, spec.qmax - zero_point) * scale
        error = (values - rounded).square().sum(-1)
        share = torch.where(error < best, each, share)
        best = torch.minimum(error, best)
    return low * share, high * share


class SquaredError(MinMax):
    """The range, shrunk from the extremes by a common factor, whose grid has the least squared error."""

    def __init__(self) -> None:
        super().__init__()
        self.values: list[Tensor] = []

    def see(self, x: Tensor) -> None:
        super().see(x)
        values = x.flatten()
        self.values.append(values[:: max(1, len(values) // KEPT) | 1].clone())  # odd: channels come in even numbers

    def range(self, spec: Spec) -> Range:
        low, high = checked(self.low, self.high)
        values = torch.cat(self.values)

        def error(share: float) -> float:
            scale, zero_point = scale_and_zero_point(spec, low * share, high * share)
            return float((values - fake_quantize(spec, values, scale, zero_point)).double().square().sum())

        best = min(SHRINK, key=error)
        return low * best, high * best
