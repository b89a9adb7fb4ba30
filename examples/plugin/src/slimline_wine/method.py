"""Pruning of weak neurons: hidden neurons whose weights are small go, whole.

A hidden neuron j reads with row w_j of one linear layer and is read through column v_j of the next. ReLU lets a factor
c > 0 move from one to the other without changing the function, so the score is the product, which such a move leaves
alone:

    s_j = ‖w_j‖₂ · ‖v_j‖₂
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

from pydantic import Field
from torch import nn

from slimline.errors import MethodError
from slimline.method import Batches, Context, Edit, Method, Plan
from slimline.pruning.channels import slice_layer


@dataclass(frozen=True)
class WeakNeurons(Method):
    """Prune ``ratio`` of each hidden layer; for models whose linear layers follow one another."""

    ratio: Annotated[float, Field(gt=0, lt=1)] = 0.5

    def plan(self, model: nn.Module, batches: Batches, context: Context) -> Plan:
        del batches  # the weights decide alone
        linear = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
        if len(linear) < 2:
            raise MethodError(f"{context.where}: weak-neurons found no hidden layer in this model")
        hidden, notes = [], []
        for (name, layer), (reader, after) in pairwise(linear.items()):
            if layer.out_features != after.in_features:
                raise MethodError(f"{context.where}: weak-neurons: {reader} doesn't read what {name} gives")
            score = layer.weight.detach().norm(dim=1) * after.weight.detach().norm(dim=0)
            count = max(1, round(len(score) * (1 - self.ratio)))
            hidden.append({"layer": name, "reader": reader, "kept": sorted(score.topk(count).indices.tolist())})
            notes.append(f"{name}: {count} of {len(score)} neurons kept")
        # no tensors: what ``apply`` keeps of the weights is all there is
        return Plan(Edit("weak-neurons", {"hidden": hidden}), notes=notes)

    @staticmethod
    def apply(model: nn.Module, edit: Edit) -> nn.Module:
        for each in edit.data["hidden"]:
            slice_layer(model.get_submodule(each["layer"]), out=each["kept"], into=None)
            slice_layer(model.get_submodule(each["reader"]), out=None, into=each["kept"])
        return model
