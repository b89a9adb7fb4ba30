"""N:M sparsity: of every m consecutive weights along the input axis, the n largest in magnitude stay.

2:4 is what sparse tensor cores run at up to twice the dense rate (Mishra et al. 2021, arXiv:2104.08378); CPUs' dense
kernels gain nothing. Groups are cut per output and kernel position, where a matrix product sums.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from slimline.errors import MethodError
from slimline.method import Alone, Batches, Context, Edit, Plan
from slimline.pruning import masks
from slimline.pruning.masking import Masking, zeroed


@dataclass(frozen=True)
class NM(Masking):
    """Keep ``n`` of each ``m`` weights outside ``skip`` (globs); layers whose inputs aren't a multiple of m stay."""

    n: Annotated[int, Field(ge=1)] = 2
    m: Annotated[int, Field(ge=2)] = 4

    def check(self, where: str) -> None:
        if self.n >= self.m:
            raise MethodError(f"{where}.n: {self.n} of {self.m} leaves every weight; n must be below m")

    def plan(self, model: nn.Module, batches: Batches, context: Context) -> Plan:
        del batches  # the weights decide alone
        self.check(context.where)
        keep, notes = {}, []
        for name, layer in masks.maskable(model, self.skip, context.where).items():
            weight = masks.weight(layer)
            if weight.shape[1] % self.m:
                notes.append(f"{name}: stays dense: {weight.shape[1]} inputs are no multiple of {self.m}")
            else:
                keep[name] = largest(weight.abs(), self.n, self.m)
        if not keep:
            raise MethodError(f"{context.where}.m: no layer's inputs are a multiple of {self.m}")
        return masks.plan("n-m", model, keep, {"layers": list(keep), "n": self.n, "m": self.m}, notes)

    def alone(self, model: nn.Module, batches: Batches, context: Context) -> dict[str, Alone]:
        del batches

        def change(name: str, layer: nn.Module) -> Alone:
            def mask() -> Tensor:
                return largest(masks.weight(layer).abs(), self.n, self.m)

            return zeroed(model, name, mask, {"n": self.n, "m": self.m})

        layers = masks.maskable(model, self.skip, context.where)
        return {name: change(name, each) for name, each in layers.items() if masks.weight(each).shape[1] % self.m == 0}

    @staticmethod
    def apply(model: nn.Module, edit: Edit) -> nn.Module:
        if "m" in edit.data:  # edits of earlier versions don't say
            for name in edit.data["layers"]:
                setattr(model.get_submodule(name), masks.PATTERN, (edit.data["n"], edit.data["m"]))
        return masks.attach(model, edit.data["layers"])

    def constrain(self, model: nn.Module, step: int, total: int) -> None:
        del step, total
        masks.enforce(masks.masked(model))


def largest(values: Tensor, n: int, m: int) -> Tensor:
    """Return the mask [out × in × …] of the ``n`` largest of every ``m`` consecutive inputs."""
    last = values.movedim(1, -1)
    groups = last.reshape(*last.shape[:-1], -1, m)  # out × … × in/m × m
    keep = torch.zeros_like(groups, dtype=torch.bool).scatter_(-1, groups.topk(n, dim=-1).indices, value=True)
    return keep.flatten(-2).movedim(-1, 1).contiguous()
