"""What the quantize methods share: the plan, from folding BatchNorm to what makes up for the rounding, and its replay.

They differ in their schemes.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import torch
from torch import nn

from slimline.errors import MethodError
from slimline.layers import sharing
from slimline.method import Alone, Batches, Context, Edit, Plan
from slimline.quantization import costs, mixed_precision, steps
from slimline.quantization.folding import batchnorm_pairs, fold_weights, without_norms
from slimline.quantization.keys import QuantizeKeys
from slimline.quantization.placement import bare_layers, place
from slimline.quantization.quantizers import is_quantizable, is_quantized, quantize_layer, quantizers
from slimline.quantization.quantizers import replace as put
from slimline.quantization.storage_only import storage_notes
from slimline.task import call


@dataclass(frozen=True)
class Quantize(QuantizeKeys):
    """A quantize method with these keys. A subclass gives its name and schemes."""

    def alone(self, model: nn.Module, batches: Batches, context: Context) -> dict[str, Alone]:
        return costs.alone(self, model, batches, context)

    def check_model(self, model: nn.Module, batches: Batches, context: Context) -> None:
        """Check that the globs of ``skip`` and ``layers`` name layers, those of ``layers`` some not skipped, and that
        ``smooth`` finds something to move.
        """
        bare = bare_layers(model)
        names = [name for name, layer in bare.items() if is_quantizable(layer)]
        left = self.chosen(names, context.where)
        for pattern in self.layers:
            if not any(fnmatchcase(name, pattern) for name in left):
                raise MethodError(
                    f"{context.where}.layers: {pattern!r} names only layers that skip leaves out; layers that are "
                    f"left: {', '.join(left)}"
                )
        if self.smooth is not None:
            rounded = [name for name in left if self.for_layer(name).activation_spec(bare[name]) is not None]
            if not steps.find_moves(self, model, next(iter(batches()))[0], rounded):
                raise MethodError(
                    f"{context.where}.smooth: nothing to move: none of the Linear layers whose inputs are rounded "
                    "stands behind a LayerNorm or behind attention; leave smooth out"
                )

    def foresee(self, model: nn.Module, batches: Batches, context: Context) -> nn.Module:
        foreseen = without_norms(model, next(iter(batches()))[0])
        if "auto" not in (self.bits, self.skip):
            bare = {name: layer for name, layer in bare_layers(foreseen).items() if is_quantizable(layer)}
            tables = {name: bare[name] for name in self.chosen(list(bare), context.where)}
            tables = {name: table for name, table in tables.items() if isinstance(table, nn.Embedding)}
            put(
                foreseen, {name: quantize_layer(table, self.weight_spec(table), None) for name, table in tables.items()}
            )
        return foreseen

    def plan(self, model: nn.Module, batches: Batches, context: Context) -> Plan:
        """Fold every BatchNorm that directly follows a convolution, quantize every layer not in ``skip``, calibrate.

        Equalization comes before the quantizers, reconstruction after the calibration.
        A model that carries quantizers already gets new specs and ranges; its structure stays.
        """
        self.check(context.where)
        inputs, _ = next(iter(batches()))
        if "auto" in (self.bits, self.skip):
            method, notes = mixed_precision.resolve(self, model, batches, context)
            plan = method.plan(model, batches, context)
            return replace(plan, notes=[*plan.notes, *notes])
        folds = [] if is_quantized(model) else batchnorm_pairs(model, inputs)
        bare = bare_layers(model)
        layers = self.chosen([name for name, module in bare.items() if is_quantizable(module)], context.where)
        own = {name: self.for_layer(name) for name in layers}
        specs = {name: (each.weight_spec(bare[name]), each.activation_spec(bare[name])) for name, each in own.items()}
        moves = steps.find_moves(self, model, inputs, [name for name, (_, inner) in specs.items() if inner is not None])
        for move in moves:
            for name in () if move.folded else move.readers:
                weight, activation = specs[name]
                specs[name] = weight, activation and replace(activation, smooth=True)
        data = {"fold": [list(pair) for pair in folds], "layers": layers, **self.specs_data(specs)}
        if self.bias_correction:
            data["bias"] = [
                name for name in layers if getattr(bare[name], "bias", 0) is None and name not in dict(folds)
            ]
        edit = Edit(self.name, data)
        # into tensors that the model has
        writes = folds or quantizers(model) or steps.moves_weights(self, own)
        quantized = copy.deepcopy(model) if writes else sharing(model)
        fold_weights(quantized, folds)
        quantized = self.apply(quantized, edit)
        notes = [f"{len(folds)} BatchNorms folded, {len(layers)} layers quantized"]
        notes += steps.equalize(self, quantized, inputs, layers, context)
        notes += steps.smooth(self, quantized, moves, batches, layers, context)

        def run() -> None:
            for rows, _ in batches():
                call(quantized, rows)

        try:
            steps.calibrate(quantized, run, own)
            notes += steps.reconstruct(self, quantized, batches, own, context)
        except MethodError as error:
            raise MethodError(f"{context.where}: {error}") from error
        # the quantizers that apply makes are new and unset, even where ranges stay
        applied = self.apply(sharing(model), edit).state_dict()
        changed = {
            name: tensor for name, tensor in quantized.state_dict().items() if not torch.equal(applied[name], tensor)
        }
        return Plan(edit, changed, notes + storage_notes({name: (bare[name], *spec) for name, spec in specs.items()}))

    @staticmethod
    def apply(model: nn.Module, edit: Edit) -> nn.Module:
        return place(model, edit.data)
