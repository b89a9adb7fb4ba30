"""Structured pruning: whole channels go, so that dense kernels really get smaller.

Channels that must go together form a group (``slimline.channels``). The score of a channel is the sum over the group's
weights w that belong to it:

    l1      Σ |w|                 l2      √Σ w²                  (Li et al. 2017, arXiv:1608.08710)
    taylor  |Σ w · ∂L/∂w|                                        (Molchanov et al. 2019, arXiv:1906.10771)

Magnitudes are divided by their group's mean, so that groups of different fan-in compare; Taylor scores share the unit
of the loss and compare as they are. A group keeps a multiple of ``multiple`` channels, since vector units run in such
widths. ``ratio`` is the share that goes, ``of`` says of what:

    channels        the lowest scores go, of all groups (``scope: global``) or the same share of each (``layer``)
    macs, bytes     step by step, ``multiple`` channels go where the score lost per multiply-add (per weight) saved is
                    least, at the widths reached by then, until the share is gone
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from slimline.channels import Cost, Group, groups, is_depthwise, slice_model
from slimline.errors import MethodError
from slimline.layers import macs
from slimline.method import Batches, Context, Edit, Method, Plan
from slimline.quantizers import plain
from slimline.task import call


@dataclass(frozen=True)
class Structured(Method):
    """Prune ``ratio`` of the model's channels, MACs or bytes by ``importance``; no group loses over ``max_ratio``."""

    importance: Literal["l1", "l2", "taylor"] = "taylor"
    ratio: Annotated[float, Field(gt=0, lt=1)] = 0.4
    of: Literal["channels", "macs", "bytes"] = "channels"
    multiple: Annotated[int, Field(ge=1)] = 8
    max_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.75
    scope: Literal["global", "layer"] = "global"

    def plan(self, model: nn.Module, batches: Batches, context: Context) -> Plan:
        bare = plain(model)
        inputs, _ = next(iter(batches()))
        outputs = context.task.signature()["outputs"][0]["shape"][-1]
        found = groups(bare, inputs, outputs, where=f"{context.where}: structured: ")
        if not found:
            raise MethodError(f"{context.where}: structured found no channels that can be pruned in this model")
        gradients = self._gradients(bare, batches, context) if self.importance == "taylor" else {}
        scores = [self._score(group, bare, gradients) for group in found]
        widths = self._widths(found, scores) if self.of == "channels" else self._cheapest(found, scores, bare, inputs)
        kept = [sorted(score.topk(width).indices.tolist()) for score, width in zip(scores, widths, strict=True)]
        layers: dict[str, dict[str, list[int]]] = {}
        notes = []
        for group, channels in zip(found, kept, strict=True):
            for layer, side, owned in group.members:
                layers.setdefault(layer, {})[side] = sorted(position for c in channels for position in owned[c])
            notes.append(f"{group.members[0][0]}: {len(channels)} of {group.channels} channels kept")
        state = model.state_dict()
        sliced = slice_model(copy.deepcopy(model), layers).state_dict()
        tensors = {name: sliced[name] for name in sliced if sliced[name].shape != state[name].shape}
        return Plan(Edit("structured", {"kept": layers}), tensors, notes)

    @staticmethod
    def apply(model: nn.Module, edit: Edit) -> nn.Module:
        return slice_model(model, edit.data["kept"])

    def _gradients(self, model: nn.Module, batches: Batches, context: Context) -> dict[str, Tensor]:
        """Return ∂L/∂w summed over the calibration batches, by parameter name."""
        model.eval()
        model.zero_grad()
        for inputs, y in batches():
            context.task.loss(call(model, inputs), y).backward()  # type: ignore[no-untyped-call]
        return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    def _score(self, group: Group, model: nn.Module, gradients: dict[str, Tensor]) -> Tensor:
        """Return one score a channel of ``group`` ([channels], float64): the sum over all that the channel owns."""
        total = torch.zeros(group.channels, dtype=torch.float64)
        for layer, side, owned in group.members:
            module = model.get_submodule(layer)
            if not isinstance(module, nn.Conv2d | nn.Linear):
                continue
            weight = module.weight.detach()
            if self.importance == "taylor":
                if f"{layer}.weight" not in gradients:
                    continue
                values = weight * gradients[f"{layer}.weight"]
            else:
                values = weight.abs() if self.importance == "l1" else weight.square()
            axis = 0 if side == "out" or is_depthwise(module) else 1
            by_position = values.double().movedim(axis, 0).flatten(1).sum(1)
            if self.importance == "taylor":  # a channel's outputs and its readers see the same error: count each side
                by_position = by_position.abs()
            total += torch.stack([by_position[positions].sum() for positions in owned])
        if self.importance == "l2":
            total = total.sqrt()
        return total if self.importance == "taylor" else total / total.mean().clamp(min=1e-12)

    def _least(self, group: Group) -> int:
        """Return how many channels of ``group`` must stay."""
        least = max(1, round(group.channels * (1 - self.max_ratio)))
        return min(group.channels, max(round(least / self.multiple), 1) * self.multiple)

    def _widths(self, found: list[Group], scores: list[Tensor]) -> list[int]:
        """Return how many channels each group keeps when ``ratio`` of all channels go."""
        if self.scope == "global":
            everything = torch.cat(scores).sort().values
            threshold = everything[min(len(everything) - 1, int(self.ratio * len(everything)))]
            wanted = [int((score >= threshold).sum()) for score in scores]
        else:
            wanted = [round(group.channels * (1 - self.ratio)) for group in found]
        rounded = [round(want / self.multiple) * self.multiple for want in wanted]
        return [min(max(w, self._least(group)), group.channels) for w, group in zip(rounded, found, strict=True)]

    def _cheapest(
        self, found: list[Group], scores: list[Tensor], model: nn.Module, inputs: dict[str, Tensor]
    ) -> list[int]:
        """Return how many channels each group keeps when ``ratio`` of the MACs or weights go at the least score."""
        if self.of == "macs":
            row = {name: tensor[:1] for name, tensor in inputs.items()}
            full = {name: float(count) for name, count in macs(model, lambda: call(model, row)).items()}
        else:
            kinds = (nn.Conv2d, nn.Linear)
            full = {name: float(m.weight.numel()) for name, m in model.named_modules() if isinstance(m, kinds)}
        cost = Cost(found, model, full)
        ascending = [score.sort().values for score in scores]
        widths = [group.channels for group in found]
        allowed = (1 - self.ratio) * cost.total(widths)
        while cost.total(widths) > allowed:
            steps = []
            for index, group in enumerate(found):
                narrower = (math.ceil(widths[index] / self.multiple) - 1) * self.multiple
                if narrower < self._least(group):
                    continue
                gone = group.channels - widths[index], group.channels - narrower
                lost = float(ascending[index][gone[0] : gone[1]].sum())
                steps.append((lost / cost.saved(widths, index, narrower), index, narrower))
            if not steps:
                break
            _, index, narrower = min(steps)
            widths[index] = narrower
        return widths
