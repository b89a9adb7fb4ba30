"""What the quantize methods share: fold BatchNorm, place quantizers, calibrate. The methods differ in their Specs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any, cast

import torch
from torch import Tensor, nn

from slimline.errors import MethodError
from slimline.method import Batches, Context, Edit, Plan
from slimline.quantizers import (
    Observer,
    Spec,
    calibrate,
    is_quantizable,
    is_quantized,
    plain_layer,
    quantize_layer,
    replace,
    spec_data,
    spec_of,
)
from slimline.task import call


def plan(
    method: str,
    model: nn.Module,
    batches: Batches,
    context: Context,
    *,
    weight: Spec,
    activation: Spec,
    observer: Callable[[], Observer],
    skip: list[str],
) -> Plan:
    """Fold every BatchNorm that directly follows a convolution, quantize every layer not in ``skip``, calibrate.

    A model that carries quantizers already gets new specs and ranges; its structure stays.
    """
    inputs, _ = next(iter(batches()))
    folds = [] if is_quantized(model) else batchnorm_pairs(model, inputs)
    bare = {name: plain_layer(module) for name, module in model.named_modules() if name}
    names = [name for name, module in bare.items() if is_quantizable(module)]
    for pattern in skip:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise MethodError(f"{context.where}.skip: {pattern!r} matches no layer; layers: {', '.join(names)}")
    layers = [name for name in names if not any(fnmatchcase(name, pattern) for pattern in skip)]
    if not layers:
        raise MethodError(f"{context.where}: no layer is left to quantize")
    edit = Edit(
        method,
        {
            "fold": [list(pair) for pair in folds],
            "layers": layers,
            "weight": spec_data(weight),
            "activation": spec_data(activation),
        },
    )
    quantized = copy.deepcopy(model)
    fold_weights(quantized, folds)
    quantized = apply(quantized, edit)

    def run() -> None:
        for rows, _ in batches():
            call(quantized, rows)

    calibrate(quantized, run, observer)
    applied = apply(copy.deepcopy(model), edit).state_dict()  # its quantizers are new and unset, even where ranges stay
    changed = {
        name: tensor for name, tensor in quantized.state_dict().items() if not torch.equal(applied[name], tensor)
    }
    notes = [f"{len(folds)} BatchNorms folded, {len(layers)} layers quantized"]
    return Plan(edit, changed, notes)


def apply(model: nn.Module, edit: Edit) -> nn.Module:
    """Remove the folded BatchNorms, give their convolutions a bias, and put quantizers on the listed layers."""
    data: dict[str, Any] = edit.data
    for conv_name, norm_name in data["fold"]:
        conv = cast(nn.Conv2d, model.get_submodule(conv_name))
        if conv.bias is None:
            conv.bias = nn.Parameter(torch.zeros(conv.out_channels))
        replace(model, {norm_name: nn.Identity()})
    weight, activation = spec_of(data["weight"]), spec_of(data["activation"])
    for name in data["layers"]:
        layer = plain_layer(model.get_submodule(name))
        replace(model, {name: quantize_layer(layer, weight, activation)})
    return model


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
