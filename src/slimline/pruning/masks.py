"""Masks: which weights are zero for good.

A masked layer carries a bool buffer ``weight_mask`` of its weight's shape, True where a weight lives. It is part of the
state dict, so it is saved, replayed and resumed like any tensor. ``fit`` zeroes what is masked after every optimizer
step, in every later stage too, whatever methods run there. Folding a BatchNorm keeps zeros (0·γ/σ = 0), rounding keeps
them (0 is on every quantizer's grid), slicing slices the mask, and a factorized layer loses it: its factors are dense.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from slimline.errors import MethodError
from slimline.layers import not_named
from slimline.method import Edit, Plan

NAME = "weight_mask"
PATTERN = "mask_pattern"  # (n, m), of a layer that n-m masked


def maskable(model: nn.Module, skip: Sequence[str], where: str) -> dict[str, nn.Module]:
    """Return the convolutions and linear layers that no glob of ``skip`` matches, by name.

    Raises MethodError at a glob that matches nothing and when no layer is left; ``where`` is the method's file and key.
    """
    kinds = (nn.Conv2d, nn.Linear)
    layers: dict[str, nn.Module] = {name: each for name, each in model.named_modules() if isinstance(each, kinds)}
    left = {name: layers[name] for name in not_named(layers, skip, f"{where}.skip")}
    if not left:
        raise MethodError(f"{where}.skip: no layer is left to prune")
    return left


def mask_of(layer: nn.Module) -> Tensor | None:
    """Return a layer's mask (bool, True = lives), or None."""
    return cast(Tensor | None, getattr(layer, NAME, None))


def masked(model: nn.Module) -> dict[str, nn.Module]:
    """Return the layers that carry a mask, by name."""
    return {name: layer for name, layer in model.named_modules() if mask_of(layer) is not None}


def live(layer: nn.Module) -> Tensor:
    """Return a layer's mask; without one every weight lives."""
    mask = mask_of(layer)
    return mask if mask is not None else torch.ones_like(weight(layer), dtype=torch.bool)


def weight(layer: nn.Module) -> Tensor:
    """Return a layer's weight without its gradient's history."""
    return cast(Tensor, layer.weight).detach()


def attach(model: nn.Module, names: Sequence[str] | Mapping[str, Any]) -> nn.Module:
    """Give each named layer a mask under which all lives; a mask that is there stays."""
    for name in names:
        layer = model.get_submodule(name)
        if mask_of(layer) is None:
            layer.register_buffer(NAME, live(layer))
    return model


def shifted(before: nn.Module, after: nn.Module) -> list[str]:
    """Return a line for each layer whose n:m pattern held in ``before`` and does not in ``after``.

    Slicing a layer's inputs keeps its zeros but shifts its groups of m.
    """
    lines = []
    layers = masked(after)
    for name, layer in masked(before).items():
        pattern = getattr(layers.get(name), PATTERN, None)
        if pattern is None or pattern != getattr(layer, PATTERN, None) or _beyond(layer, *pattern)[0]:
            continue
        n, m = pattern
        broken, groups = _beyond(layers[name], n, m)
        if broken:
            lines.append(
                f"{name}: {n}:{m} holds no more: {broken} of {groups} groups ({broken / groups:.0%}) have over {n} "
                "live weights, for its inputs were sliced; prune channels before n-m"
            )
    return lines


def _beyond(layer: nn.Module, n: int, m: int) -> tuple[int, int]:
    """Return how many groups of m consecutive inputs have more than n live weights, and how many there are."""
    last = live(layer).movedim(1, -1)
    groups = functional.pad(last, (0, -last.shape[-1] % m)).reshape(-1, m)
    return int((groups.sum(1) > n).sum()), len(groups)


def enforce(layers: Mapping[str, nn.Module]) -> None:
    """Zero the masked weights of ``layers``, in place.

    Raises MethodError at a mask of another shape than its weight's: a method sliced the one and not the other.
    """
    for name, layer in layers.items():
        mask = live(layer)
        if mask.shape != weight(layer).shape:
            raise MethodError(
                f"{name}: its mask is {list(mask.shape)}, its weight {list(weight(layer).shape)}; "
                "slice both (slimline.pruning.channels.slice_layer does)"
            )
        weight(layer).masked_fill_(~mask, 0)


def smallest(values: Tensor, count: int, lives: Tensor) -> Tensor:
    """Return the mask (bool, shape of ``values``) that drops the ``count`` smallest; what lives no more goes first."""
    order = values.masked_fill(~lives, -1).flatten().argsort(stable=True)
    keep = torch.ones(values.numel(), dtype=torch.bool, device=values.device)
    keep[order[:count]] = False
    return keep.reshape(values.shape) & lives


def plan(method: str, model: nn.Module, keep: Mapping[str, Tensor], data: dict[str, Any], notes: list[str]) -> Plan:
    """Return the Plan that puts the masks ``keep`` on their layers; the edit holds ``data``, which names the layers."""
    tensors: dict[str, Tensor] = {}
    lines = []
    gone = total = 0
    for name, mask in keep.items():
        layer = model.get_submodule(name)
        mask = mask & live(layer)  # noqa: PLW2901  (what is gone stays gone)
        tensors[f"{name}.{NAME}"] = mask
        tensors[f"{name}.weight"] = weight(layer).masked_fill(~mask, 0)
        zeros = int((~mask).sum())
        lines.append(f"{name}: {zeros} of {mask.numel()} weights are zero ({zeros / mask.numel():.0%})")
        gone, total = gone + zeros, total + mask.numel()
    summary = f"{gone} of {total} weights are zero ({gone / total:.1%}); dense kernels run no faster for it"
    return Plan(Edit(method, data), tensors, [*lines, *notes, summary])
