"""Factors fitted to what they really read, layer by layer in the order of the calls.

Cut alone, each layer is near to what it was on the inputs that it had; behind other cut layers it has others, and the
errors pile up. So the last factors are solved for again, with the factorized model's own inputs and the original
layer's outputs (Zhang et al. 2016, arXiv:1505.06798, §2.4, "asymmetric reconstruction"):

    min E‖y − B·G·z‖²  over B [O × r] and G [r × n]:    M = E[y zᵀ]·(E[z zᵀ] + λI)⁻¹,    B = U_r,  G = U_rᵀ·M

z are the inputs of the last factor but one (unfolded, where it is a convolution), U_r the r leading eigenvectors of
M·E[z zᵀ]·Mᵀ: regression of reduced rank (Izenman 1975, J. Multivariate Analysis 5). Where the last factor isn't
pointwise or the one before is depthwise, the last alone is solved for. The bias stays: y is what comes before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimline import layer_hooks
from slimline.layers import calls
from slimline.method import Batches
from slimline.quantization.quantizers import smoothing_factor
from slimline.task import call

RIDGE = 1e-4  # of the mean of E[z zᵀ]'s diagonal
SAMPLES = 32  # rows (and positions) seen for each of the n unknowns of an output


class _ReachedError(Exception):
    """A model ran as far as needed."""


@dataclass
class _Moments:
    """Sums of products over ``count`` samples: of z with itself, and with y."""

    zz: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    zy: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    count: int = 0

    def add(self, z: Tensor, y: Tensor) -> None:
        z = z.double()
        self.zz = self.zz + z.T @ z
        self.zy = self.zy + z.T @ y.double()
        self.count += len(z)


@torch.no_grad()
def refit(changed: nn.Module, model: nn.Module, names: Sequence[str], batches: Batches) -> None:
    """Solve for the last factors of the sequences ``names`` of ``changed`` in place; ``model`` holds the layers."""
    changed.eval()
    model.eval()
    inputs, _ = next(iter(batches()))
    row = {name: tensor[:1] for name, tensor in inputs.items()}
    for name in dict.fromkeys(calls(model, names, lambda: call(model, row))):
        *_, (first, before), (second, last) = changed.get_submodule(name).named_children()
        both = _is_pointwise(last) and _is_dense(before)
        moments = _moments(changed, model, name, f"{name}.{first if both else second}", batches)
        _solve(moments, before if both else None, last)


def _moments(changed: nn.Module, model: nn.Module, name: str, factor: str, batches: Batches) -> _Moments:
    """Return the moments of what ``factor`` reads in ``changed`` with what the layer ``name`` gave in ``model``."""
    seen: dict[str, Tensor] = {}
    target = changed.get_submodule(factor)
    bias = cast(Tensor | None, model.get_submodule(name).bias)

    def read(_name: str, _layer: nn.Module, args: tuple[Any, ...]) -> None:
        smooth = smoothing_factor(target)
        seen["z"] = args[0] if smooth is None else args[0] * smooth
        raise _ReachedError

    def gave(_name: str, _layer: nn.Module, _args: tuple[Any, ...], out: Tensor) -> None:
        seen["y"] = out
        raise _ReachedError

    found = _Moments()
    with layer_hooks.before(changed, [factor], read), layer_hooks.after(model, [name], gave):
        for inputs, _ in batches():
            for each in (changed, model):
                with suppress(_ReachedError):
                    call(each, inputs)
            y = _rows(seen["y"], target)
            found.add(_unfolded(seen["z"], target), y if bias is None else y - bias)
            if found.count >= SAMPLES * len(found.zz):
                break
    return found


def _solve(moments: _Moments, before: nn.Module | None, last: nn.Module) -> None:
    """Write the weights that the moments give into ``last``, and into the factor ``before`` it."""
    zz, zy = moments.zz / moments.count, moments.zy / moments.count
    zz = zz + RIDGE * zz.diagonal().mean().clamp(min=1e-12) * torch.eye(len(zz), dtype=zz.dtype)
    whole = torch.linalg.solve(zz, zy).T  # outputs × n
    if before is None:
        parts = [(last, whole)]
    else:
        rank = cast(Tensor, last.weight).shape[1]
        leading = torch.linalg.eigh(whole @ zz @ whole.T).eigenvectors[:, -rank:]
        parts = [(before, leading.T @ whole), (last, leading)]
    for factor, weight in parts:
        own = cast(Tensor, factor.weight)
        own.copy_(weight.reshape(own.shape))


def _unfolded(z: Tensor, factor: nn.Module) -> Tensor:
    """Return what each output position of a factor reads, samples × inputs."""
    if not isinstance(factor, nn.Conv2d):
        return z.flatten(0, -2)
    columns = F.unfold(F.pad(z, _padding(factor)), factor.kernel_size, factor.dilation, 0, factor.stride)
    return columns.transpose(1, 2).flatten(0, 1)


def _padding(factor: nn.Conv2d) -> list[int]:
    """Return zeros left, right, above and below."""
    if not isinstance(factor.padding, str):
        high, wide = factor.padding
        return [wide, wide, high, high]
    if factor.padding == "valid":
        return [0, 0, 0, 0]
    total = [d * (k - 1) for d, k in zip(factor.dilation, factor.kernel_size, strict=True)]
    (top, bottom), (left, right) = ((each // 2, each - each // 2) for each in total)
    return [left, right, top, bottom]


def _rows(y: Tensor, factor: nn.Module) -> Tensor:
    """Return outputs, samples × channels."""
    return (y.movedim(1, -1) if isinstance(factor, nn.Conv2d) else y).flatten(0, -2)


def _is_pointwise(factor: nn.Module) -> bool:
    if isinstance(factor, nn.Conv2d):
        return factor.kernel_size == (1, 1) and factor.stride == (1, 1) and factor.groups == 1
    return isinstance(factor, nn.Linear)


def _is_dense(factor: nn.Module) -> bool:
    return isinstance(factor, nn.Linear) or (isinstance(factor, nn.Conv2d) and factor.groups == 1)
