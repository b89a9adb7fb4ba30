"""A new last layer learns numbers of any size: while it trains, its outputs are lifted to the targets' mean and spread.

    y = unit · (W·h + b) + centre

An optimizer's steps are of one size whatever the targets are: prices around 300,000 would be out of reach of weights
that start near 0. When the training ends, W and b take unit and centre in.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from slimline import layer_hooks
from slimline.task import call


@contextmanager
def lifted(
    model: nn.Module, inputs: Mapping[str, Tensor], new: Collection[str], centre: float, unit: float
) -> Iterator[None]:
    """Train ``model``, whose outputs are numbers, in the block; what it answers is in the targets' unit throughout.

    ``inputs`` are a few rows, ``new`` the parameters that no file brought along. Nothing happens where the last layer
    isn't among them (it knows its unit), or is no nn.Linear with a bias.
    """
    name = _last(model, inputs)
    if name is None or f"{name}.weight" not in new:
        yield
        return

    def lift(_name: str, _layer: nn.Module, _args: tuple[Any, ...], out: Tensor) -> Tensor:
        return out * unit + centre

    with layer_hooks.after(model, [name], lift):
        yield
    layer = model.get_submodule(name)
    with torch.no_grad():
        layer.get_parameter("weight").mul_(unit)
        layer.get_parameter("bias").mul_(unit).add_(centre)


@torch.no_grad()
def _last(model: nn.Module, inputs: Mapping[str, Tensor]) -> str | None:
    """Return the linear layer, with a bias, whose outputs are the model's own."""
    seen: dict[str, Tensor] = {}

    def see(name: str, _layer: nn.Module, _args: tuple[Any, ...], out: Tensor) -> None:
        seen[name] = out.flatten()

    names = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear) and layer.bias is not None]
    with layer_hooks.after(model, names, see):
        out = call(model.eval(), dict(inputs)).flatten()
    return next((name for name in reversed(seen) if torch.equal(seen[name], out)), None)
