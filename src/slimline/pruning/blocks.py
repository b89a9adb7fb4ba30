"""Blocks of a model that can go: children of its lists, such as the layers of an encoder or the stages of a CNN.

    x → f_0 → f_1 → f_2 → …        kept: {container: [0, 2]}        x → f_0 → f_2 → …

A block can go where it gives the shape it takes, since the next one then takes its input; a run on real rows tells.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from slimline import layer_hooks
from slimline.errors import MethodError, near_miss
from slimline.layers import sharing
from slimline.task import call

LISTS = (nn.Sequential, nn.ModuleList)
CANNOT_RUN = (RuntimeError, IndexError, KeyError, AttributeError, TypeError)  # what a model may raise without a block


def lists(model: nn.Module) -> list[str]:
    """Return the names of the model's lists of blocks."""
    return [name for name, layer in model.named_modules() if isinstance(layer, LISTS)]


def find(model: nn.Module, name: str, where: str) -> nn.Module:
    """Return the list called ``name``. Raises MethodError, ``where`` first, when there is none."""
    known = lists(model)
    if name not in known:
        shown = ", ".join(repr(each) for each in known) or "none"
        raise MethodError(f"{where}: {name!r} is no list of blocks.{near_miss(name, known)} Lists: {shown}")
    return model.get_submodule(name)


def inside(model: nn.Module, name: str) -> list[str]:
    """Return the names of the blocks of the list called ``name``, in order."""
    return [f"{name}.{each}".lstrip(".") for each, _ in model.get_submodule(name).named_children()]


def droppable(model: nn.Module, inputs: dict[str, Tensor]) -> dict[str, list[int]]:
    """Return {list: positions} of the blocks with weights that give the shape they take.

    A list in a list holds blocks of its own; what is inside a block stays or goes with it.
    """
    found: dict[str, list[int]] = {}
    outer: list[str] = []
    candidates: dict[str, tuple[str, int]] = {}
    for name in lists(model):
        if any(name.startswith(f"{block}.") or name == block for block in outer):
            continue
        for position, block in enumerate(inside(model, name)):
            module = model.get_submodule(block)
            if not isinstance(module, LISTS):
                outer.append(block)
                if any(parameter.ndim > 1 for parameter in module.parameters()):
                    candidates[block] = (name, position)
    seen, _ = shapes(sharing(model), candidates, inputs)
    for block, (name, position) in candidates.items():
        if block in seen and seen[block][0] == seen[block][1]:
            found.setdefault(name, []).append(position)
    return found


def keep(model: nn.Module, kept: Mapping[str, Sequence[int]]) -> nn.Module:
    """Leave the listed positions of each list alone, in place, and return the model."""
    found = [(model.get_submodule(name), positions) for name, positions in kept.items()]
    for container, positions in cast(list[tuple[nn.Sequential, Sequence[int]]], found):
        for position in reversed(range(len(container))):
            if position not in positions:
                del container[position]
    return model


@torch.inference_mode()
def shapes(
    model: nn.Module, names: Iterable[str], inputs: dict[str, Tensor]
) -> tuple[dict[str, tuple[list[int], list[int]]], Tensor]:
    """Return the shapes a row that each block takes and gives, and the model's output."""
    found: dict[str, tuple[list[int], list[int]]] = {}

    def see(name: str, _block: nn.Module, args: Any, named: Any, out: Any) -> None:
        takes = next((each for each in (*args, *named.values()) if isinstance(each, Tensor)), None)
        gives = out[0] if isinstance(out, tuple) else out
        if takes is not None and isinstance(gives, Tensor):
            found[name] = list(takes.shape[1:]), list(gives.shape[1:])

    with layer_hooks.after(model, names, see, with_kwargs=True):
        return found, call(model.eval(), inputs)
