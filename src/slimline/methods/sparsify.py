"""Sparsifying training: a penalty that draws weights towards zero, so that the cut which follows costs less.

    l1           λ Σ |w|             over all convolutions and linear layers
    l2           λ Σ w²
    bn-scale     λ Σ |γ|             over all BatchNorms             (Liu et al. 2017, arXiv:1708.06519)
    group-lasso  λ Σ_c ‖w_c‖₂        over channels c, each with all that it owns  (Wen et al. 2016, arXiv:1608.03665)
    growing      w_c ← (1 − λ·t/T) · w_c  at step t of T, for the ``ratio`` of channels with the least Σ|w|
                                                                     (Wang et al. 2021, arXiv:2012.09243)

``growing`` is the L2 penalty of that paper, its weight growing step by step, taken apart from the learning rate as
AdamW does (arXiv:1711.05101). In params.yaml it stands among the ``methods`` of ``before``, which trains first:

    prune:
      before: {epochs: 4, lr: 1.0e-2, methods: [{name: sparsify, kind: group-lasso, strength: 1.0e-3}]}
      methods: [{name: structured, importance: l2, ratio: 0.4}]

The weights of its last epoch go on, whatever validation says: earlier ones are less sparse.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from slimline.errors import MethodError
from slimline.method import Batches, Context, Edit, Method, Plan
from slimline.pruning import importances
from slimline.pruning.channels import Group, groups, is_depthwise
from slimline.pruning.widths import Limits, above_threshold
from slimline.quantization.quantizers import plain

CHANNELS = "sparsified_channels"
TINY = 1e-12  # under the root: its slope at 0 is finite


class Side(NamedTuple):
    """What channels own on one side of a layer: ``positions`` along ``axis``, each the channel's in ``owners``."""

    layer: str
    axis: int
    size: int
    positions: Tensor
    owners: Tensor


class Channels(NamedTuple):
    """A group of channels, and those of them that fade."""

    width: int
    sides: list[Side]
    fading: list[int]


@dataclass(frozen=True)
class Sparsify(Method):
    """Draw weights to zero by a penalty of ``kind``, ``strength`` times λ; only growing reads ``ratio``."""

    kind: Literal["l1", "l2", "bn-scale", "group-lasso", "growing"] = "group-lasso"
    strength: Annotated[float, Field(gt=0, lt=1)] = 1e-3
    ratio: Annotated[float, Field(gt=0, lt=1)] = 0.4

    def check_model(self, model: nn.Module, batches: Batches, context: Context) -> None:
        self.plan(model, batches, context)

    def foresee(self, model: nn.Module, batches: Batches, context: Context) -> nn.Module:
        del batches, context
        return model

    def plan(self, model: nn.Module, batches: Batches, context: Context) -> Plan:
        if self.kind == "bn-scale" and not scales(model):
            raise MethodError(
                f"{context.where}.kind: bn-scale needs a BatchNorm, and this model has none (quantizing folds them)"
            )
        if self.kind not in {"group-lasso", "growing"}:
            return Plan(Edit("sparsify", {"groups": []}), notes=[f"{self.kind} penalty of {self.strength:g}"])
        bare = plain(model)
        inputs, _ = next(iter(batches()))
        outputs = context.task.signature()["outputs"][0]["shape"][-1]
        found = groups(bare, inputs, outputs, where=f"{context.where}: sparsify: ")
        fading: list[list[int]] = [[] for _ in found]
        notes = [f"{self.kind} penalty of {self.strength:g} on {sum(g.channels for g in found)} channels"]
        if self.kind == "growing":
            scores = importances.scores("l1", found, bare, batches, context)
            limits = Limits(1, 0.9)
            for index, (score, width) in enumerate(zip(scores, above_threshold(scores, self.ratio), strict=True)):
                gone = len(score) - limits.rounded(width, len(score))
                fading[index] = sorted(score.topk(gone, largest=False).indices.tolist())
            notes = [
                f"{group.members[0][0]}: {len(gone)} of {group.channels} channels fade"
                for group, gone in zip(found, fading, strict=True)
            ]
        data = [
            {"count": group.channels, "members": [list(member) for member in group.members], "fading": gone}
            for group, gone in zip(found, fading, strict=True)
        ]
        return Plan(Edit("sparsify", {"groups": data}), notes=notes)

    @staticmethod
    def apply(model: nn.Module, edit: Edit) -> nn.Module:
        setattr(model, CHANNELS, [_channels(model, each) for each in edit.data["groups"]])
        return model

    def penalty(self, model: nn.Module) -> Tensor | None:
        if self.kind == "growing":
            return None
        if self.kind == "group-lasso":
            norms = [(_squares(model, each) + TINY).sqrt().sum() for each in _pinned(model)]
            return self.strength * torch.stack(norms).sum()
        if self.kind == "bn-scale":
            return self.strength * torch.stack([scale.abs().sum() for scale in scales(model)]).sum()
        weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        sums = [weight.abs().sum() if self.kind == "l1" else weight.square().sum() for weight in weights]
        return self.strength * torch.stack(sums).sum()

    @torch.no_grad()
    def constrain(self, model: nn.Module, step: int, total: int) -> None:
        if self.kind != "growing":
            return
        for channels in _pinned(model):
            for side in channels.sides:
                weight = _weight(model, side)
                left = torch.ones(channels.width, device=weight.device)
                left[channels.fading] = 1 - self.strength * step / total
                factor = torch.ones(side.size, device=weight.device)
                factor[side.positions] = left[side.owners]
                shape = [1] * weight.ndim
                shape[side.axis] = -1
                weight.mul_(factor.reshape(shape))

    def settled(self, step: int, total: int) -> bool:
        return 0 < total <= step


def scales(model: nn.Module) -> list[Tensor]:
    """Return the γ of every BatchNorm that has one."""
    norms = (nn.BatchNorm1d, nn.BatchNorm2d)
    return [module.weight for module in model.modules() if isinstance(module, norms) and module.affine]


def _channels(model: nn.Module, data: dict[str, Any]) -> Channels:
    """Return a group of an edit with its indices as tensors."""
    sides = []
    for layer, at, owned in Group(data["members"], data["count"]).members:
        module = model.get_submodule(layer)
        if isinstance(module, nn.Conv2d | nn.Linear):
            axis = 0 if at == "out" or is_depthwise(module) else 1
            positions = torch.tensor([position for each in owned for position in each])
            owners = torch.tensor([channel for channel, each in enumerate(owned) for _ in each])
            sides.append(Side(layer, axis, module.weight.shape[axis], positions, owners))
    return Channels(data["count"], sides, data["fading"])


def _pinned(model: nn.Module) -> list[Channels]:
    return cast(list[Channels], getattr(model, CHANNELS))


def _weight(model: nn.Module, side: Side) -> Tensor:
    """Return the weight of one side's layer. Raises MethodError when the layer was changed since."""
    weight = getattr(model.get_submodule(side.layer), "weight", None)
    if not isinstance(weight, Tensor) or weight.shape[side.axis] != side.size:
        raise MethodError(
            f"{side.layer}: changed after sparsify looked at its channels; let sparsify come last, or before"
        )
    return weight


def _squares(model: nn.Module, channels: Channels) -> Tensor:
    """Return Σ w² of each channel over all that it owns, [channels]."""
    total = torch.zeros(channels.width)
    for side in channels.sides:
        weight = _weight(model, side)
        by_position = weight.square().movedim(side.axis, 0).flatten(1).sum(1)
        owners = side.owners.to(weight.device)
        total = total.to(weight.device).index_add(0, owners, by_position[side.positions])
    return total
