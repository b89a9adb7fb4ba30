"""Grids: the integers that a real value is rounded to, and how a tensor's scales lie along its axes.

Formulas (Krishnamoorthi 2018, arXiv:1806.08342; Jacob et al. 2018, arXiv:1712.05877), b bits:

    symmetric  x_q = round(x / x_max · (2^(b−1) − 1)),            x_max = max |x|,  x_q ∈ [−(2^(b−1) − 1), 2^(b−1) − 1]
    linear     x_q = round((x − x_min) / (x_max − x_min) · (2^b − 1)),              x_q ∈ [0, 2^b − 1]

In both, x ≈ scale · (x_q − zero_point). The range is widened to hold 0, and linear's zero_point is rounded, so that 0
(padding, ReLU's floor) is exact. The gradient passes straight through inside the range and is 0 outside. With a learned
step the scale has a gradient too (LSQ, Esser et al. 2020, arXiv:1902.08153):

    ∂x̂/∂s = round(x/s) − x/s  inside the range,  the grid's end (less zero_point) outside;   times g = 1/√(N·q_max)

where N is the number of values that share the scale (of a weight) or of one row (of an activation).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Scheme = Literal["symmetric", "linear"]
FloatScheme = Literal["float16", "bfloat16"]  # the grid is the format's values; there is nothing to scale
FLOAT = 32  # as a width: nothing is rounded
FLOATS: dict[str, torch.dtype] = {"float16": torch.float16, "bfloat16": torch.bfloat16}
TINY = torch.finfo(torch.float32).tiny  # below it a scale's reciprocal is infinite


@dataclass(frozen=True)
class Spec:
    """The structure of a quantizer: width, scheme, and which values share a scale.

    ``axis`` None: the whole tensor; else each channel along it. ``block``: so many values along the axis after it, at
    each position of the axes behind. ``learned``: the scale is a parameter. ``dynamic``: the range is that of the
    tensor at hand; the scale that calibration found is kept for runtimes that can't. ``smooth``: each input channel is
    multiplied by a factor of its own first (``slimline.quantization.smoothing``).
    """

    bits: int = 8
    scheme: Scheme | FloatScheme = "symmetric"
    axis: int | None = None
    block: int | None = None
    learned: bool = False
    dynamic: bool = False
    smooth: bool = False

    @property
    def is_float(self) -> bool:
        return self.scheme in FLOATS

    @property
    def qmin(self) -> int:
        return 1 - 2 ** (self.bits - 1) if self.scheme == "symmetric" else 0

    @property
    def qmax(self) -> int:
        return int(2 ** (self.bits - 1) - 1 if self.scheme == "symmetric" else 2**self.bits - 1)


def container(bits: int) -> int:
    """Return the width of the integers that hold ``bits`` bits in a file: 2, 4, 8 or 16."""
    return next(width for width in (2, 4, 8, 16) if width >= bits)


def spec_of(document: Mapping[str, Any]) -> Spec:
    """Return the Spec that an edit's JSON holds."""
    return Spec(**document)


def spec_data(spec: Spec) -> dict[str, Any]:
    """Return a Spec as JSON data; ``block``, ``learned``, ``dynamic`` and ``smooth`` stand there when they are set."""
    optional = {"block", "learned", "dynamic", "smooth"}
    return {key: value for key, value in asdict(spec).items() if key not in optional or value}


def scale_and_zero_point(spec: Spec, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Return (scale float32, zero_point int32) for the range [low, high], each of the range's shape."""
    if spec.is_float:
        return torch.ones_like(low), torch.zeros_like(low, dtype=torch.int32)
    low, high = low.clamp(max=0.0), high.clamp(min=0.0)
    if spec.scheme == "symmetric":
        scale = torch.maximum(-low, high) / spec.qmax
        scale = torch.where(scale >= TINY, scale, torch.ones_like(scale))
        return scale, torch.zeros_like(scale, dtype=torch.int32)
    scale = (high - low) / (spec.qmax - spec.qmin)
    scale = torch.where(scale >= TINY, scale, torch.ones_like(scale))
    return scale, (spec.qmin - torch.round(low / scale)).clamp(spec.qmin, spec.qmax).to(torch.int32)


def scale_shape(spec: Spec, shape: Sequence[int]) -> tuple[int, ...]:
    """Return the shape of the scales of a tensor of ``shape``: [], [channels] or [channels, blocks, …]."""
    if spec.axis is None:
        return ()
    if spec.block is None:
        return (shape[spec.axis],)
    return (shape[0], math.ceil(shape[1] / spec.block), *shape[2:])


def by_scale(spec: Spec, x: Tensor) -> Tensor:
    """Return the values of ``x``, those that share a scale along the last axis: scale_shape + [n].

    The last block of a channel is filled up with zeros.
    """
    if spec.axis is None:
        return x.flatten()
    if spec.block is None:
        return x.movedim(spec.axis, 0).flatten(1)
    values = x.flatten(2) if x.ndim > 2 else x[:, :, None]
    filled = F.pad(values, (0, 0, 0, -x.shape[1] % spec.block))
    blocks = filled.reshape(len(filled), -1, spec.block, filled.shape[2]).movedim(2, -1)
    return blocks.reshape(*scale_shape(spec, x.shape), spec.block)


def spread(spec: Spec, scale: Tensor, shape: Sequence[int]) -> Tensor:
    """Return one scale (or zero point) for each value of a tensor of ``shape``, broadcastable to it."""
    if spec.axis is None:
        return scale
    if spec.block is None:
        return scale.reshape([-1 if axis == spec.axis else 1 for axis in range(len(shape))])
    return scale.repeat_interleave(spec.block, dim=1)[:, : shape[1]]


def fake_quantize(spec: Spec, x: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """Return ``x`` rounded to its grid, in real values; the gradient is that of the module's docstring."""
    if spec.is_float:
        format_ = FLOATS[spec.scheme]
        largest = torch.finfo(format_).max
        return x + (x.clamp(-largest, largest).to(format_).to(x.dtype) - x).detach()
    if not spec.learned and spec.block is None:
        if spec.axis is None:
            return torch.fake_quantize_per_tensor_affine(x, scale, zero_point, spec.qmin, spec.qmax)
        return torch.fake_quantize_per_channel_affine(x, scale, zero_point, spec.axis, spec.qmin, spec.qmax)
    step, zero = spread(spec, scale, x.shape), spread(spec, zero_point, x.shape)
    v = torch.clamp(x / step, spec.qmin - zero, spec.qmax - zero)
    return (v + (v.round() - v).detach()) * step


def gradient_scaled(x: Tensor, factor: float) -> Tensor:
    """Return ``x``, whose gradient is multiplied by ``factor``."""
    return (x - x * factor).detach() + x * factor
