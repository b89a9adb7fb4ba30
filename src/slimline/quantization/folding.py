"""BatchNorm folding: a norm that directly follows a convolution becomes part of its weights."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimline import layer_hooks
from slimline.quantization.quantizers import replace
from slimline.task import call


@torch.no_grad()
def batchnorm_pairs(model: nn.Module, inputs: dict[str, Tensor]) -> list[tuple[str, str]]:
    """Return the names of (convolution, BatchNorm) where the norm reads that very output, seen in one forward run."""
    made: dict[int, str] = {}
    alive: list[Tensor] = []
    pairs: list[tuple[str, str]] = []

    def remember(name: str, _layer: nn.Module, _args: Any, out: Tensor) -> None:
        made[id(out)] = name
        alive.append(out)  # while it lives, no other tensor gets its id

    def match(name: str, _layer: nn.Module, args: tuple[Tensor, ...]) -> None:
        if id(args[0]) in made:
            pairs.append((made[id(args[0])], name))

    was_training = model.training
    model.eval()
    convolutions = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    foldable = [name for name, module in model.named_modules() if _is_foldable(module)]
    try:
        with layer_hooks.after(model, convolutions, remember), layer_hooks.before(model, foldable, match):
            call(model, {name: value[:1] for name, value in inputs.items()})
    finally:
        model.train(was_training)
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
    replace(bare, {norm: rest(bare.get_submodule(norm)) for _, norm in batchnorm_pairs(bare, inputs)})
    return bare


def rest(norm: nn.Module) -> nn.Module:
    """Return what a BatchNorm does beside normalizing: nothing, or its layers in order (timm's BatchNormAct2d)."""
    layers = OrderedDict(norm.named_children())
    return nn.Sequential(layers).train(norm.training) if layers else nn.Identity()


def _is_foldable(norm: nn.Module) -> bool:
    """Return whether a module is a BatchNorm of fixed statistics and, of a subclass, is one followed by its layers."""
    if not isinstance(norm, nn.BatchNorm2d) or not norm.track_running_stats or not norm.affine:
        return False
    if type(norm) is nn.BatchNorm2d:
        return True
    assert norm.running_var is not None and norm.running_mean is not None  # noqa: S101, PT018  (they are tracked)
    x = torch.linspace(-3, 3, 8 * norm.num_features, device=norm.weight.device).reshape(2, norm.num_features, 2, 2)
    plain = F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
    try:
        return torch.allclose(norm(x), rest(norm)(plain), atol=1e-5)
    except (RuntimeError, TypeError, ValueError):  # a forward of its own, or layers that aren't called in a row
        return False
