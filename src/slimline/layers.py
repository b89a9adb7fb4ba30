"""Layers for operations that methods must be able to see, what globs name, what a layer costs, and copies that take no
memory.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from slimline import layer_hooks
from slimline.errors import MethodError


class Add(nn.Module):
    """The residual sum a + b of two tensors of the same shape, as a layer (a plain ``a + b`` in ``forward`` is
    invisible to methods), so that its inputs can be quantized.
    """

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b


def sharing(model: nn.Module) -> nn.Module:
    """Return a copy of a model's structure over the same numbers: for changes that put new tensors in, and for reading.

    Layers can be replaced and gradients taken without the model's knowing. What is written into a tensor in place is
    written into the model.
    """
    memo: dict[int, Any] = {
        id(each): nn.Parameter(each.detach(), requires_grad=each.requires_grad) for each in model.parameters()
    }
    memo |= {id(each): each.detach() for each in model.buffers()}
    return copy.deepcopy(model, memo)


def not_named(names: Iterable[str], globs: Iterable[str], where: str, kind: str = "layer") -> list[str]:
    """Return those of ``names`` that no glob matches.

    Raises MethodError at a glob that matches nothing, so that no typo passes; ``where`` is its file and key.
    """
    known, globs = list(names), list(globs)
    for glob in globs:
        if not any(fnmatchcase(name, glob) for name in known):
            raise MethodError(f"{where}: {glob!r} matches no {kind}; layers: {', '.join(known) or 'none'}")
    return [name for name in known if not any(fnmatchcase(name, glob) for glob in globs)]


@torch.inference_mode()
def calls(model: nn.Module, names: Iterable[str], run: Callable[[], Any]) -> list[str]:
    """Return the named layers in the order in which ``run()`` calls them, each as often as it is called."""
    order: list[str] = []
    model.eval()
    with layer_hooks.after(model, names, lambda name, *_: order.append(name)):
        run()
    return order


@torch.inference_mode()
def macs(model: nn.Module, run: Callable[[], Any]) -> dict[str, int]:
    """Return the multiply-adds of each convolution and linear layer, by name, while ``run()`` puts one row through."""
    found: dict[str, int] = {}

    def count(name: str, layer: nn.Module, _args: Any, out: Tensor) -> None:
        weight = layer.get_parameter("weight")
        found[name] = found.get(name, 0) + out.numel() // weight.shape[0] * weight.numel()

    names = [name for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    model.eval()
    with layer_hooks.after(model, names, count):
        run()
    return found
