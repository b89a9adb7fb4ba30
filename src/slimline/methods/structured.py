"""Structured pruning: whole channels go, so that dense kernels really get smaller.

Channels that must go together form a group (``pruning/channels.py``), and each gets a score by ``importance`` (formulas
in ``pruning/importances.py``). A group keeps a multiple of ``multiple`` channels: vector units run in such widths.
``ratio`` is the share that goes, ``of`` says of what:

    channels        the lowest scores go, of all groups (``scope: global``), the same share of each (``layer``), or of
                    each what costs the model alike (``sensitivity``: ``slimline.pruning.shares``)
    macs, bytes     step by step, ``multiple`` channels go where the score lost per multiply-add (per weight) saved is
                    least, at the widths reached by then, until the share is gone
    latency         the same per time saved on the target (``slimline.layer_times``); the whole model is measured at the
                    end, and steps go on until the share of its time is gone. ``kernels: int8`` times the model as it
                    will be once quantized, with ``float_layers`` (globs) left out as quantize will ``skip`` them
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from slimline import layer_times
from slimline.errors import MethodError
from slimline.layers import macs
from slimline.method import Alone, Batches, Context, Edit, Method, Plan, check_ratio
from slimline.pruning import importances, shares
from slimline.pruning.channels import Cost, Group, groups, keep_channels, slice_model
from slimline.pruning.importances import OfChannels
from slimline.pruning.widths import Limits, above_threshold, cheapest
from slimline.quantization.quantizers import plain
from slimline.sensitivity import Sensitivity
from slimline.task import call


@dataclass(frozen=True)
class Structured(Method):
    """Prune ``ratio`` of the model's channels, MACs, bytes or time; no group loses over ``max_ratio``."""

    importance: OfChannels = "taylor"
    ratio: Annotated[float, Field(gt=0, lt=1)] = 0.4
    of: Literal["channels", "macs", "bytes", "latency"] = "channels"
    multiple: Annotated[int, Field(ge=1)] = 8
    max_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.75
    scope: Literal["global", "layer", "sensitivity"] = "global"
    kernels: Literal["as-is", "int8"] = "as-is"
    float_layers: list[str] = field(default_factory=list)

    def check(self, where: str) -> None:
        if self.scope == "sensitivity" and self.of != "channels":
            raise MethodError(f"{where}.scope: sensitivity shares out channels; with of: {self.of} leave it out")
        if self.float_layers and self.kernels != "int8":
            raise MethodError(f"{where}.float_layers: it is read with kernels: int8, where the others run in integers")
        if self.of == "channels":
            check_ratio(self.ratio, self.max_ratio, where)

    def check_model(self, model: nn.Module, batches: Batches, context: Context) -> None:
        bare = plain(model)
        found = self._groups(bare, next(iter(batches()))[0], context)
        if self.importance == "bn-scale":
            importances.scores("bn-scale", found, bare, batches, context)
        if self.float_layers:
            layer_times.check_float_layers(model, batches, context, self.float_layers)

    def foresee(self, model: nn.Module, batches: Batches, context: Context) -> nn.Module:
        del batches, context
        return model

    def plan(self, model: nn.Module, batches: Batches, context: Context) -> Plan:
        self.check(context.where)
        bare = plain(model)
        inputs, _ = next(iter(batches()))
        found = self._groups(bare, inputs, context)
        self._limits.check([group.channels for group in found], context.where)
        scores = importances.scores(self.importance, found, bare, batches, context)
        if self.of == "latency":
            widths, notes = layer_times.choose(
                "structured", found, scores, model, batches, context, self.ratio, self._limits,
                int8=self.kernels == "int8", float_layers=self.float_layers,
            )  # fmt: skip
        elif self.of == "channels":
            widths = self._widths(found, scores, model, context)
            notes = [self._reached(1 - sum(widths) / sum(group.channels for group in found))]
        else:
            cost = Cost(found, bare, self._costs(bare, inputs))
            widths = cheapest(found, scores, cost, self.ratio, self._limits)
            whole, left = cost.total([group.channels for group in found]), cost.total(widths)
            short = left > (1 - self.ratio) * whole
            notes = [self._reached(1 - left / whole) + (self._bound(found, cost, widths) if short else "")]
        layers = keep_channels(found, scores, widths)
        kept = [f"{g.members[0][0]}: {w} of {g.channels} channels kept" for g, w in zip(found, widths, strict=True)]
        state = model.state_dict()
        sliced = slice_model(copy.deepcopy(model), layers).state_dict()
        tensors = {name: sliced[name] for name in sliced if sliced[name].shape != state[name].shape}
        return Plan(Edit("structured", {"kept": layers}), tensors, [*kept, *notes])

    def alone(self, model: nn.Module, batches: Batches, context: Context) -> dict[str, Alone]:
        bare = plain(model)
        inputs, _ = next(iter(batches()))
        found = self._groups(bare, inputs, context)
        scores = cache(lambda: importances.scores(self.importance, found, bare, batches, context))

        def change(index: int) -> Alone:
            return self._alone(model, found[index], lambda: scores()[index], self.ratio)

        return {group.members[0][0]: change(index) for index, group in enumerate(found)}

    def _alone(self, model: nn.Module, group: Group, score: Callable[[], Tensor], ratio: float) -> Alone:
        """Return the change that takes the ``ratio`` least important channels of one group."""
        width = max(1, round(group.channels * (1 - ratio)))

        def make() -> nn.Module:
            return slice_model(copy.deepcopy(model), keep_channels([group], [score()], [width]))

        names = dict.fromkeys(name for name, _, _ in group.members)
        layers = tuple(name for name in names if isinstance(model.get_submodule(name), nn.Conv2d | nn.Linear))
        return Alone({"importance": self.importance, "width": width}, make, layers)

    @staticmethod
    def _groups(bare: nn.Module, inputs: dict[str, Tensor], context: Context) -> list[Group]:
        outputs = context.task.signature()["outputs"][0]["shape"][-1]
        found = groups(bare, inputs, outputs, where=f"{context.where}: structured: ")
        if not found:
            raise MethodError(f"{context.where}: structured found no channels that can be pruned in this model")
        return found

    def _reached(self, gone: float) -> str:
        return f"{gone:.1%} of the {self.of} are gone where {self.ratio:.1%} was asked"

    def _bound(self, found: list[Group], cost: Cost, widths: list[int]) -> str:
        """Say why no more can go: of the groups, which are all at their least, the one that holds most."""
        most = max(range(len(found)), key=lambda index: cost.saved(widths, index, 0))
        return (
            f": no more can go with max_ratio {self.max_ratio} and multiple {self.multiple}; most is held by "
            f"{found[most].members[0][0]} at {widths[most]} of {found[most].channels} channels"
        )

    @staticmethod
    def apply(model: nn.Module, edit: Edit) -> nn.Module:
        return slice_model(model, edit.data["kept"])

    @property
    def _limits(self) -> Limits:
        return Limits(self.multiple, self.max_ratio)

    def _widths(self, found: list[Group], scores: list[Tensor], model: nn.Module, context: Context) -> list[int]:
        """Return how many channels each group keeps when ``ratio`` of all channels go."""
        if self.scope == "global":
            wanted = above_threshold(scores, self.ratio)
        elif self.scope == "layer":
            wanted = [round(group.channels * (1 - self.ratio)) for group in found]
        else:
            shares = self._sensitive_shares(found, scores, model, context)
            wanted = [round(group.channels * (1 - share)) for group, share in zip(found, shares, strict=True)]
        return [self._limits.rounded(width, group.channels) for width, group in zip(wanted, found, strict=True)]

    def _sensitive_shares(
        self, found: list[Group], scores: list[Tensor], model: nn.Module, context: Context
    ) -> list[float]:
        """Return the share of each group's channels that goes when each alone costs the model the same."""
        study = Sensitivity(model, context)

        def damage(index: str, ratio: float) -> float:
            at = int(index)
            alone = self._alone(model, found[at], lambda: scores[at], ratio)
            return study.cost(self, found[at].members[0][0], alone).rise

        sizes = {str(index): group.channels for index, group in enumerate(found)}
        return list(shares.shares(sizes, damage, self.ratio, self.max_ratio).values())

    def _costs(self, model: nn.Module, inputs: dict[str, Tensor]) -> dict[str, float]:
        """Return what each layer costs, in multiply-adds of one row or in weights."""
        if self.of == "macs":
            row = {name: tensor[:1] for name, tensor in inputs.items()}
            return {name: float(count) for name, count in macs(model, lambda: call(model, row)).items()}
        kinds = (nn.Conv2d, nn.Linear)
        return {name: float(m.weight.numel()) for name, m in model.named_modules() if isinstance(m, kinds)}
