"""What ``float16`` and ``bfloat16`` share: weights in floating point of 16 bits, activations in float32.

The weights of convolutions and linear layers are rounded, and stay so: each carries a quantizer whose grid is the
format's values, through which gradients pass straight in later training.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import nn

from slimline.errors import MethodError
from slimline.layers import not_named
from slimline.method import Batches, Context, Edit, Method, Plan
from slimline.quantization.folding import batchnorm_pairs, fold_weights, without_norms
from slimline.quantization.grids import FLOATS, FloatScheme, Spec, spec_data
from slimline.quantization.placement import bare_layers, place
from slimline.quantization.quantizers import is_quantizable, is_quantized


@dataclass(frozen=True)
class FloatWeights(Method):
    """``skip`` are globs of layers left as they are. A subclass gives its name and format."""

    skip: list[str] = field(default_factory=list)

    name: ClassVar[str]
    scheme: ClassVar[FloatScheme]

    def check_model(self, model: nn.Module, batches: Batches, context: Context) -> None:
        del batches
        self._chosen(model, context)

    def foresee(self, model: nn.Module, batches: Batches, context: Context) -> nn.Module:
        del context
        return without_norms(model, next(iter(batches()))[0])

    def plan(self, model: nn.Module, batches: Batches, context: Context) -> Plan:
        """Fold BatchNorms as ``linear`` does and round every weight not in ``skip``; integer grids give way."""
        inputs, _ = next(iter(batches()))
        folds = [] if is_quantized(model) else batchnorm_pairs(model, inputs)
        layers = self._chosen(model, context)
        spec = Spec(16, self.scheme)
        edit = Edit(
            self.name,
            {"fold": [list(pair) for pair in folds], "layers": layers, "weight": spec_data(spec), "activation": None},
        )
        rounded = copy.deepcopy(model)
        fold_weights(rounded, folds)
        rounded = self.apply(rounded, edit)
        largest = torch.finfo(FLOATS[self.scheme]).max
        for name in layers:
            weight = rounded.get_submodule(name).get_parameter("weight").data
            if not bool((weight.abs() <= largest).all()):
                found = float(weight.abs().max())
                raise MethodError(
                    f"{context.where}: layer {name}: a weight of {found:.3g} is beyond {self.name}'s largest, "
                    f"{largest:.3g}; add the layer to skip, or take bfloat16"
                )
            weight.copy_(weight.to(FLOATS[self.scheme]).float())
        before = self.apply(copy.deepcopy(model), edit).state_dict()
        changed = {name: each for name, each in rounded.state_dict().items() if not torch.equal(before[name], each)}
        notes = [
            f"{len(folds)} BatchNorms folded, the weights of {len(layers)} layers in {self.name}",
            f"storage only: ONNX Runtime turns {self.name} weights to float32 on CPUs: {', '.join(layers)}",
        ]
        return Plan(edit, changed, notes)

    @staticmethod
    def apply(model: nn.Module, edit: Edit) -> nn.Module:
        """Remove the folded BatchNorms and put quantizers of the format on the listed layers."""
        return place(model, edit.data)

    def _chosen(self, model: nn.Module, context: Context) -> list[str]:
        bare = bare_layers(model)
        names = [
            name for name, each in bare.items() if isinstance(each, nn.Conv2d | nn.Linear) and is_quantizable(each)
        ]
        left = not_named(names, self.skip, f"{context.where}.skip")
        if not left:
            raise MethodError(f"{context.where}: no layer is left to store in {self.name}")
        return left
