"""BatchNorm folding: a norm that directly follows a convolution becomes part of its weights."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from slimline.quantizers import replace
from slimline.task import call


@torch.no_grad()
def batchnorm_pairs(model: nn.Module, inputs: dict[str, Tensor]) -> list[tuple[str, str]]:
    """Return the names of (convolution, BatchNorm) where the norm reads that very output, seen in one forward run."""
    made: dict[int, str] = {}
    alive: list[Tensor] = []
    pairs: list[tuple[str, str]] = []
    hooks = []

    def remember(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: Any, out: Tensor) -> None:
            made[id(out)] = name
            alive.append(out)  # while it lives, no other tensor gets its id

        return hook

    def match(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
            if id(args[0]) in made:
                pairs.append((made[id(args[0])], name))

        return hook

    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(remember(name)))
        elif isinstance(module, nn.BatchNorm2d) and module.track_running_stats and module.affine:
            hooks.append(module.register_forward_pre_hook(match(name)))
    was_training = model.training
    model.eval()
    try:
        call(model, {name: value[:1] for name, value in inputs.items()})
    finally:
        model.train(was_training)
        for handle in hooks:
            handle.remove()
    once = [conv for conv, _ in pairs]
    return [(conv, norm) for conv, norm in pairs if once.count(conv) == 1]


@torch.no_grad()
def fold_weights(model: nn.Module, pairs: list[tuple[str, str]]) -> None:
    """Move each BatchNorm's scale and shift into its convolution: w' = w·γ/√(σ²+ε), b' = β + (b − μ)·γ/√(σ²+ε).

    The norm stays in place as it is; ``apply`` removes it.
    """
    for conv_name, norm_name in pairs:
        conv = cast(nn.Conv2d, model.get_submodule(conv_name))
        norm = cast(nn.BatchNorm2d, model.get_submodule(norm_name))
        assert norm.running_var is not None and norm.running_mean is not None  # noqa: S101, PT018  (batchnorm_pairs)
        factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        conv.weight.mul_(factor[:, None, None, None])
        bias = conv.bias if conv.bias is not None else torch.zeros_like(norm.bias)
        conv.bias = nn.Parameter(norm.bias + (bias - norm.running_mean) * factor)


def without_norms(model: nn.Module, inputs: dict[str, Tensor]) -> nn.Module:
    """Return a copy of ``model`` without the BatchNorms that folding takes, its weights as they were."""
    bare = copy.deepcopy(model).eval()
    replace(bare, {norm: nn.Identity() for _, norm in batchnorm_pairs(bare, inputs)})
    return bare
