"""Fewer layers: whole blocks go, those that stay keep their weights (Sanh et al. 2019, DistilBERT, arXiv:1910.01108:
a student that starts as every other layer of its teacher).

    x → f_0 → f_1 → f_2 → …        keep: {container: [0, 2]}        x → f_0 → f_2 → …

Only a block that gives the shape it takes can go, since the next one then takes its input; a run on real rows tells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import nn

from slimline.errors import MethodError
from slimline.layers import sharing
from slimline.method import Batches, Context, Edit, Method, Plan, compress
from slimline.params import Layer
from slimline.pruning import blocks


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
            blocks.find(model, name, where)
            every = blocks.inside(model, name)
            if kept != sorted(set(kept)) or (kept and kept[-1] >= len(every)):
                raise MethodError(f"{where}: {name}: {kept} are not positions in order, of the {len(every)} it has")
            gone += [block for position, block in enumerate(every) if position not in kept]
            notes.append(f"{name}: {len(kept)} of {len(every)} blocks kept")
        shapes, out = blocks.shapes(sharing(model), gone, inputs)
        for block in gone:
            if block not in shapes:
                raise MethodError(f"{where}: block {block} is never run, or takes no tensor")
            takes, gives = shapes[block]
            if takes != gives:
                raise MethodError(f"{where}: block {block} can't go: it takes {takes} a row and gives {gives}")
        edit = Edit("drop-layers", {"kept": {name: list(kept) for name, kept in self.keep.items()}})
        try:
            _, shorter = blocks.shapes(self.apply(sharing(model), edit), [], inputs)
        except blocks.CANNOT_RUN as error:
            raise MethodError(f"{where}: the model doesn't run without {', '.join(gone)}: {error!r}") from error
        if shorter.shape != out.shape:
            raise MethodError(f"{where}: without {', '.join(gone)} the outputs have another shape")
        return Plan(edit, {}, notes)

    @staticmethod
    def apply(model: nn.Module, edit: Edit) -> nn.Module:
        return blocks.keep(model, edit.data["kept"])
