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

import torch
from pydantic import Field
from torch import Tensor, nn

from slimline.errors import MethodError
from slimline.method import Batches, Context, Edit, Method, Plan
from slimline.quantizers import QuantizedLinear


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
            kept = torch.tensor(each["kept"])
            keep_outputs(model.get_submodule(each["layer"]), kept)
            keep_inputs(model.get_submodule(each["reader"]), kept)
        return model


def keep_outputs(layer: nn.Module, kept: Tensor) -> None:
    """Keep these output neurons of a linear layer, and their scales where it is quantized per neuron."""
    assert isinstance(layer, nn.Linear)
    layer.weight = nn.Parameter(layer.weight.detach()[kept])
    if layer.bias is not None:
        layer.bias = nn.Parameter(layer.bias.detach()[kept])
    layer.out_features = len(kept)
    if isinstance(layer, QuantizedLinear) and layer.weight_quantizer.spec.axis == 0:
        layer.weight_quantizer.scale = layer.weight_quantizer.scale[kept]
        layer.weight_quantizer.zero_point = layer.weight_quantizer.zero_point[kept]


def keep_inputs(layer: nn.Module, kept: Tensor) -> None:
    """Keep these inputs of a linear layer."""
    assert isinstance(layer, nn.Linear)
    layer.weight = nn.Parameter(layer.weight.detach()[:, kept])
    layer.in_features = len(kept)
