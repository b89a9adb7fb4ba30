"""AdaRound: weights are rounded up or down as the layer's output asks for, not to the nearest (Nagel et al. 2020,
arXiv:2004.10568).

With x the layer's input in the float model, x̂ in the quantized one, and V one real number a weight:

    min_V  ‖Wx − W̃x̂‖² + λ Σ (1 − |2h(V) − 1|^β),      W̃ = s · clip(⌊W/s⌋ + h(V), q_min, q_max)
    h(V) = clip(σ(V)·(ζ − γ) + γ, 0, 1),               ζ = 1.1, γ = −0.1, λ = 0.01

‖·‖² is summed over output channels and averaged over rows and places, as a share of what the nearest leaves, so that λ
means the same at any scale of the outputs. β falls from 20 to 2 by a half cosine after the first fifth of the
iterations, which have no second term; in the end each h(V) is 0 or 1.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimline.pruning.masks import live
from slimline.quantization.grids import fake_quantize, spread
from slimline.quantization.quantizers import QuantizedConv2d, QuantizedLinear

ZETA, GAMMA, LAMBDA = 1.1, -0.1, 0.01
BETA, WARM = (20.0, 2.0), 0.2
ROWS, RATE = 32, 1e-2
Layer = QuantizedConv2d | QuantizedLinear


def rectified_sigmoid(v: Tensor) -> Tensor:
    """Return h(V)."""
    return (torch.sigmoid(v) * (ZETA - GAMMA) + GAMMA).clamp(0, 1)


def beta(step: int, iterations: int) -> float:
    """Return β at ``step``; before the end of the warm-up it counts for nothing."""
    done = max(0.0, step / iterations - WARM) / (1 - WARM)
    return BETA[1] + (BETA[0] - BETA[1]) * 0.5 * (1 + math.cos(math.pi * done))


@torch.enable_grad()
def adaround(layer: Layer, inputs: Tensor, targets: Tensor, iterations: int, seed: int) -> tuple[Tensor, float]:
    """Return the layer's weight on its grid, and its squared error as a share of that of rounding to the nearest.

    ``inputs`` are rows of x̂ as the weight meets them (after the input's quantizer), ``targets`` Wx plus bias for each.
    The grid is that of the layer's weight quantizer. Masked weights stay 0. Where nothing better is found on these
    rows, the nearest stays (a share of 1).
    """
    spec = layer.weight_quantizer.spec
    weight, shape = layer.weight.detach(), layer.weight.shape
    step = spread(spec, layer.weight_quantizer.steps().detach(), shape)
    zero = spread(spec, layer.weight_quantizer.zero_point, shape)
    low, high = spec.qmin - zero, spec.qmax - zero
    floor, dead = torch.floor(weight / step), ~live(layer)
    nearest = fake_quantize(spec, weight, layer.weight_quantizer.steps().detach(), layer.weight_quantizer.zero_point)

    def on_grid(up: Tensor) -> Tensor:
        return (torch.clamp(floor + up, low, high) * step).masked_fill(dead, 0)

    least = error(layer, nearest, inputs, targets)
    if not least:
        return nearest, 1.0
    share = ((weight / step - floor).clamp(0, 1) - GAMMA) / (ZETA - GAMMA)
    v = torch.logit(share).requires_grad_()
    optimizer = torch.optim.Adam([v], lr=RATE)
    draw = torch.Generator().manual_seed(seed)
    for at in range(iterations):
        rows = torch.randint(len(inputs), (min(ROWS, len(inputs)),), generator=draw)
        up = rectified_sigmoid(v)
        loss = _squares(forward(layer, on_grid(up), inputs[rows]) - targets[rows]) / least
        if at >= WARM * iterations:
            loss = loss + LAMBDA * (1 - (2 * up - 1).abs().pow(beta(at, iterations))).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    rounded = on_grid((rectified_sigmoid(v.detach()) >= 0.5).float())
    found = error(layer, rounded, inputs, targets) / least
    return (rounded, found) if found < 1 else (nearest, 1.0)


def forward(layer: Layer, weight: Tensor, x: Tensor) -> Tensor:
    """Return what the layer makes of ``x`` with another weight."""
    if isinstance(layer, nn.Linear):
        return F.linear(x, weight, layer.bias)
    return F.conv2d(x, weight, layer.bias, layer.stride, layer.padding, layer.dilation, layer.groups)


@torch.no_grad()
def error(layer: Layer, weight: Tensor, inputs: Tensor, targets: Tensor) -> float:
    """Return the squared error of the layer's outputs, summed over channels, averaged over rows and places."""
    parts = [
        float(_squares(forward(layer, weight, x) - y)) * len(x)
        for x, y in zip(torch.split(inputs, ROWS), torch.split(targets, ROWS), strict=True)
    ]
    return sum(parts) / len(inputs)


def _squares(difference: Tensor) -> Tensor:
    """Return the squares summed over channels (axis 1 of an image, the last one else), averaged over the rest."""
    axis = 1 if difference.ndim == 4 else -1
    return difference.square().sum(axis).mean()
