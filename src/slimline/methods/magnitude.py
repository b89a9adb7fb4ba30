"""Unstructured magnitude pruning: the smallest weights become zero and stay zero.

    w ← w · 1[|w| > threshold]                                         (Han et al. 2015, arXiv:1506.02626)

``scope: global`` takes one threshold for all layers, ``layer`` the same share of each, ``sensitivity`` of each what
alone would cost the model alike (``slimline.pruning.shares``). With ``schedule: cubic`` the share of zeros grows while
recovery trains (Zhu & Gupta 2017, arXiv:1710.01878): at step t, in between every Δt steps,

    s_t = s_f + (s_i − s_f) · (1 − t / (nΔt))³

with s_i = ``start``, s_f = ``ratio``, Δt = ``every``, and nΔt = ``ramp`` times all steps of recovery. Each layer runs
to its own s_f, which is fixed before recovery.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from slimline.errors import MethodError
from slimline.method import Alone, Batches, Context, Edit, Plan, check_ratio
from slimline.pruning import masks, shares
from slimline.pruning.masking import Masking, zeroed
from slimline.sensitivity import Sensitivity

SHARE = "masked_share"


@dataclass(frozen=True)
class Magnitude(Masking):
    """Zero ``ratio`` of the weights outside ``skip`` (globs); no layer loses over ``max_ratio`` of its own."""

    ratio: Annotated[float, Field(gt=0, lt=1)] = 0.5
    scope: Literal["global", "layer", "sensitivity"] = "global"
    schedule: Literal["at-once", "cubic"] = "at-once"
    start: Annotated[float, Field(ge=0, lt=1)] = 0.0
    ramp: Annotated[float, Field(gt=0, le=1)] = 0.75
    every: Annotated[int, Field(ge=1)] = 10
    max_ratio: Annotated[float, Field(gt=0, le=1)] = 0.98

    def check(self, where: str) -> None:
        if self.start > self.ratio:
            raise MethodError(f"{where}.start: {self.start} is above ratio, {self.ratio}; zeros never come back")
        check_ratio(self.ratio, self.max_ratio, where)

    def plan(self, model: nn.Module, batches: Batches, context: Context) -> Plan:
        del batches  # the weights decide alone
        self.check(context.where)
        layers = masks.maskable(model, self.skip, context.where)
        if self.scope == "sensitivity":
            shares = self._sensitive_shares(model, layers, context)
        else:
            shares = self._shares({name: masks.weight(layer).abs() for name, layer in layers.items()})
        keep = {}
        for name, layer in layers.items():
            size = masks.weight(layer).numel()
            keep[name] = kept(layer, round(self._share(shares[name], 0, 0) * size))
        notes = [f"zeros grow to {self.ratio:.1%} while recovery trains"] if self.schedule == "cubic" else []
        return masks.plan("magnitude", model, keep, {"layers": shares}, notes)

    def alone(self, model: nn.Module, batches: Batches, context: Context) -> dict[str, Alone]:
        del batches
        return {name: _alone(model, name, self.ratio) for name in masks.maskable(model, self.skip, context.where)}

    @staticmethod
    def apply(model: nn.Module, edit: Edit) -> nn.Module:
        for name, share in edit.data["layers"].items():
            setattr(model.get_submodule(name), SHARE, share)
        return masks.attach(model, edit.data["layers"])

    def constrain(self, model: nn.Module, step: int, total: int) -> None:
        layers = masks.masked(model)
        if self.schedule == "cubic" and (step % self.every == 0 or step == self._end(total)):
            for layer in layers.values():
                if (share := cast(float | None, getattr(layer, SHARE, None))) is not None:
                    count = round(self._share(share, step, total) * masks.weight(layer).numel())
                    masks.live(layer).logical_and_(kept(layer, count))
        masks.enforce(layers)

    def settled(self, step: int, total: int) -> bool:
        return self.schedule == "at-once" or step >= self._end(total)

    def _end(self, total: int) -> int:
        return max(1, math.floor(self.ramp * total))

    def _share(self, final: float, step: int, total: int) -> float:
        """Return the share of a layer's weights that is zero at ``step``, on its way to ``final``."""
        if self.schedule == "at-once":
            return final
        first = final * self.start / self.ratio
        return final + (first - final) * (1 - min(1.0, step / self._end(total))) ** 3

    def _shares(self, magnitudes: dict[str, Tensor]) -> dict[str, float]:
        """Return the final share of zeros of each layer."""
        if self.scope == "layer":
            return dict.fromkeys(magnitudes, self.ratio)
        pool = [  # the largest weights of each layer stay whatever the others hold
            values.flatten().sort().values[: math.floor(self.max_ratio * values.numel())]
            for values in magnitudes.values()
        ]
        wanted = round(self.ratio * sum(values.numel() for values in magnitudes.values()))
        owner = torch.cat([torch.full((len(values),), index) for index, values in enumerate(pool)])
        order = torch.cat(pool).argsort(stable=True)[:wanted]
        gone = owner[order].bincount(minlength=len(pool)).tolist()
        return {name: count / values.numel() for (name, values), count in zip(magnitudes.items(), gone, strict=True)}

    def _sensitive_shares(self, model: nn.Module, layers: dict[str, nn.Module], context: Context) -> dict[str, float]:
        """Return the share of zeros of each layer at which each alone costs the model the same."""
        study = Sensitivity(model, context)

        def damage(name: str, ratio: float) -> float:
            return study.cost(self, name, _alone(model, name, ratio)).rise

        sizes = {name: masks.weight(layer).numel() for name, layer in layers.items()}
        return shares.shares(sizes, damage, self.ratio, self.max_ratio)


def _alone(model: nn.Module, name: str, ratio: float) -> Alone:
    """Return the change that zeroes the ``ratio`` smallest weights of one layer."""
    layer = model.get_submodule(name)
    return zeroed(model, name, lambda: kept(layer, round(ratio * masks.weight(layer).numel())), {"ratio": ratio})


def kept(layer: nn.Module, count: int) -> Tensor:
    """Return the mask that leaves all but the ``count`` smallest weights of ``layer``."""
    return masks.smallest(masks.weight(layer).abs(), count, masks.live(layer))
