"""Fewer layers: whole blocks go, those that stay keep their weights (Sanh et al. 2019, DistilBERT, arXiv:1910.01108:
a student that starts as every other layer of its teacher).

    x → f_0 → f_1 → f_2 → …        keep: {container: [0, 2]}        x → f_0 → f_2 → …

Only a block that gives the shape it takes can go, since the next one then takes its input; a run on real rows tells.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from slimline.errors import MethodError, near_miss
from slimline.method import Batches, Context, Edit, Method, Plan, compress
from slimline.params import Layer
from slimline.task import call


@dataclass(frozen=True)
class DropLayers(Method):
    """``keep`` {nn.Sequential or nn.ModuleList: positions that stay}, counted from 0; those left are counted anew."""

    keep: Annotated[dict[Layer, list[Annotated[int, Field(ge=0)]]], Field(min_length=1)]

    def check_model(self, model: nn.Module, batches: Batches, context: Context) -> None:
        self.plan(model, batches, context)

    def foresee(self, model: nn.Module, batches: Batches, context: Context) -> nn.Module:
        return compress(self, model, batches, context)[0]

    def plan(self, model: nn.Module, batches: Batches, context: Context) -> Plan:
        where = f"{context.where}.keep"
        batch, _ = next(iter(batches()))
        inputs = {name: value[:2] for name, value in batch.items()}
        gone: list[str] = []
        notes = []
        for name, kept in self.keep.items():
            blocks = [f"{name}.{block}".lstrip(".") for block, _ in _container(model, name, where).named_children()]
            if kept != sorted(set(kept)) or (kept and kept[-1] >= len(blocks)):
                raise MethodError(f"{where}: {name}: {kept} are not positions in order, of the {len(blocks)} it has")
            gone += [block for position, block in enumerate(blocks) if position not in kept]
            notes.append(f"{name}: {len(kept)} of {len(blocks)} blocks kept")
        shapes, out = _shapes(copy.deepcopy(model), gone, inputs)
        for block in gone:
            if block not in shapes:
                raise MethodError(f"{where}: block {block} is never run, or takes no tensor")
            takes, gives = shapes[block]
            if takes != gives:
                raise MethodError(f"{where}: block {block} can't go: it takes {takes} a row and gives {gives}")
        edit = Edit("drop-layers", {"kept": {name: list(kept) for name, kept in self.keep.items()}})
        try:
            _, shorter = _shapes(self.apply(copy.deepcopy(model), edit), [], inputs)
        except (RuntimeError, IndexError, KeyError, AttributeError, TypeError) as error:
            raise MethodError(f"{where}: the model doesn't run without {', '.join(gone)}: {error!r}") from error
        if shorter.shape != out.shape:
            raise MethodError(f"{where}: without {', '.join(gone)} the outputs have another shape")
        return Plan(edit, {}, notes)

    @staticmethod
    def apply(model: nn.Module, edit: Edit) -> nn.Module:
        found = [(model.get_submodule(name), kept) for name, kept in edit.data["kept"].items()]
        for container, kept in cast(list[tuple[nn.Sequential, list[int]]], found):
            for position in reversed(range(len(container))):
                if position not in kept:
                    del container[position]
        return model


def _container(model: nn.Module, name: str, where: str) -> nn.Module:
    kinds = (nn.Sequential, nn.ModuleList)
    known = [each for each, layer in model.named_modules() if isinstance(layer, kinds)]
    if name not in known:
        lists = ", ".join(repr(each) for each in known) or "none"
        raise MethodError(f"{where}: {name!r} is no list of blocks.{near_miss(name, known)} Lists: {lists}")
    return model.get_submodule(name)


@torch.inference_mode()
def _shapes(
    model: nn.Module, blocks: Iterable[str], inputs: dict[str, Tensor]
) -> tuple[dict[str, tuple[list[int], list[int]]], Tensor]:
    """Return the shapes a row that each block takes and gives, and the model's output."""
    found: dict[str, tuple[list[int], list[int]]] = {}
    for name in blocks:

        def hook(_module: nn.Module, args: Any, named: Any, out: Any, name: str = name) -> None:
            takes = next((each for each in (*args, *named.values()) if isinstance(each, Tensor)), None)
            gives = out[0] if isinstance(out, tuple) else out
            if takes is not None and isinstance(gives, Tensor):
                found[name] = list(takes.shape[1:]), list(gives.shape[1:])

        model.get_submodule(name).register_forward_hook(hook, with_kwargs=True)
    return found, call(model.eval(), inputs)
