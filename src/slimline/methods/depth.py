"""Less depth by measurement: each layer is left out in turn, and the one that is missed least goes, until enough are
gone.

    next = argmin_b D(f(x), f_∖gone∖b(x))        D over calibration rows, f the model as it came

D is the divergence KL(p ‖ p̂) of the answers (without labels: mean (z − ẑ)²/Var z), or by how much the task's loss
rises. Costs don't add up, so every layer that is left is measured anew after each that went (Sajjad et al. 2023,
arXiv:2004.03844, compare such strategies). ``slimline.pruning.blocks`` says which layers can go.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from slimline import metrics
from slimline.errors import MethodError
from slimline.layers import sharing
from slimline.method import Batches, Context, Edit, Method, Plan
from slimline.params import Fraction
from slimline.pruning import blocks
from slimline.sensitivity import BEYOND, divergence

Kept = dict[str, list[int]]
WHAT = {"divergence": "KL to the model's own answers", "loss": "rise of the loss"}


@dataclass(frozen=True)
class Depth(Method):
    """``keep`` layers of those that can go stay, or the share ``ratio`` of them goes.

    ``within`` names one list of layers (null: all of the model's); ``importance`` says what is measured.
    """

    keep: Annotated[int, Field(ge=0)] | None = None
    ratio: Fraction | None = None
    within: str | None = None
    importance: Literal["divergence", "loss"] = "divergence"

    def check(self, where: str) -> None:
        if (self.keep is None) == (self.ratio is None):
            raise MethodError(f"{where}: depth takes one of keep (how many stay) and ratio (the share that goes)")

    def check_model(self, model: nn.Module, batches: Batches, context: Context) -> None:
        self.check(context.where)
        self._count(self._found(model, next(iter(batches()))[0], context), context)

    def plan(self, model: nn.Module, batches: Batches, context: Context) -> Plan:
        self.check(context.where)
        found = self._found(model, next(iter(batches()))[0], context)
        count = self._count(found, context)
        choice: dict[str, Any] = context.decisions.choose(
            "depth", lambda: self._choose(model, batches, context, found, count)
        )
        notes = [f"{block}: {each['why']}" for block, each in choice["blocks"].items()]
        return Plan(Edit("depth", {"kept": choice["kept"]}), {}, [*notes, choice["summary"]])

    @staticmethod
    def apply(model: nn.Module, edit: Edit) -> nn.Module:
        return blocks.keep(model, edit.data["kept"])

    def _found(self, model: nn.Module, inputs: dict[str, Tensor], context: Context) -> Kept:
        """Return {list: positions} of the layers that may go."""
        if self.within is not None:
            blocks.find(model, self.within, f"{context.where}.within")
        every = blocks.droppable(model, {name: tensor[:2] for name, tensor in inputs.items()})
        found = {name: positions for name, positions in every.items() if self.within in {None, name}}
        if not found:
            inside = f" in {self.within}" if self.within is not None else ""
            raise MethodError(f"{context.where}: no layer{inside} gives the shape it takes, so none can go")
        return found

    def _count(self, found: Kept, context: Context) -> int:
        """Return how many go."""
        whole = sum(map(len, found.values()))
        if self.ratio is not None:
            if not (count := round(self.ratio * whole)):
                raise MethodError(f"{context.where}.ratio: {self.ratio} of the {whole} that can go is less than one")
            return count
        assert self.keep is not None  # noqa: S101  (check)
        if self.keep >= whole:
            raise MethodError(f"{context.where}.keep: {self.keep}, but no more than {whole} layers can go")
        return whole - self.keep

    def _choose(self, model: nn.Module, batches: Batches, context: Context, found: Kept, count: int) -> dict[str, Any]:
        """Return which blocks stay, and of each what it cost alone and when it went."""
        kept = {name: list(range(len(blocks.inside(model, name)))) for name in found}
        left = {
            blocks.inside(model, name)[position]: (name, position)
            for name, positions in found.items()
            for position in positions
        }

        def answers(trial: nn.Module) -> Tensor:
            return metrics.outputs_of(trial, (inputs for inputs, _ in batches()))

        own = answers(sharing(model))
        targets = torch.cat([y for _, y in batches()])
        alone: dict[str, float] = {}
        went: dict[str, float] = {}
        last = ""

        def cost(block: str) -> float | None:
            name, position = left[block]
            trial = {**kept, name: [each for each in kept[name] if each != position]}
            try:
                out = answers(blocks.keep(sharing(model), trial))
            except blocks.CANNOT_RUN as error:
                nonlocal last
                last = f"{block}: {' '.join(str(error).split())}"
                return None
            return self._apart(own, out, targets, context) if out.shape == own.shape else None

        while len(went) < count:
            measured = {block: each for block in left if (each := cost(block)) is not None}
            alone = alone or measured
            if not measured:
                raise MethodError(f"{context.where}: the model doesn't run without any more of its layers; {last}")
            block = min(measured, key=lambda each: measured[each])
            went[block] = measured[block]
            name, position = left.pop(block)
            kept[name].remove(position)
        return self._told(kept, alone, went)

    def _apart(self, own: Tensor, out: Tensor, targets: Tensor, context: Context) -> float:
        if self.importance == "loss":
            value = float(context.task.loss(out, targets)) - float(context.task.loss(own, targets))
        else:
            value = divergence(context.task, own.numpy(), out.numpy())
        return value if math.isfinite(value) else BEYOND

    def _told(self, kept: Kept, alone: dict[str, float], went: dict[str, float]) -> dict[str, Any]:
        order = list(went)
        said: dict[str, dict[str, Any]] = {}
        for block, value in alone.items():
            why = f"stays: {WHAT[self.importance]} without it alone {value:.4g}"
            if block in went:
                why = (
                    f"gone, {order.index(block) + 1} of {len(order)}: {WHAT[self.importance]} without it alone "
                    f"{value:.4g}, with those before it {went[block]:.4g}"
                )
            said[block] = {"alone": value, "why": why}
        total = went[order[-1]] if order else 0.0
        summary = f"{len(order)} of {len(alone)} layers are gone: {WHAT[self.importance]} {total:.4g}"
        return {"kept": kept, "blocks": said, "summary": summary}
