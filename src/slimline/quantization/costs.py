"""What quantizing costs: of one layer alone in answers, bytes and time, and of a whole model at given widths.

A layer's cost in answers is Ω_l(b), the divergence of the model's answers on validation rows when that layer alone is
quantized (``slimline.sensitivity``). Nothing is trained for any of this.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from slimline import latency, measure
from slimline.method import Alone, Batches, Context, Method, compress
from slimline.quantization.grids import FLOAT, Spec, container, scale_shape, spec_data
from slimline.quantization.placement import bare_layers
from slimline.quantization.quantizers import (
    QuantizedConv2d,
    QuantizedLinear,
    has_integer_kernel,
    is_quantizable,
    plain_layer,
    quantize_layer,
)
from slimline.sensitivity import Cost, Sensitivity

if TYPE_CHECKING:
    from slimline.quantization.plan import Quantize

CHOOSING = {"skip", "layers", "choices", "budget", "max_loss", "bits", "weight_bits", "activation_bits"}
REFINING = {"rounding", "rounding_steps", "learned_steps"}  # what comes after a width is chosen


def alone(method: Quantize, model: nn.Module, batches: Batches, context: Context) -> dict[str, Alone]:
    """Return, for each Conv2d and Linear that ``method`` quantizes, how it quantizes that one alone."""
    bare = bare_layers(model)
    every = [name for name, layer in bare.items() if is_quantizable(layer)]

    def change(name: str) -> Alone:
        others = [each for each in every if each != name]
        own = replace(_to_nearest(method.for_layer(name)), skip=others, layers={})
        unread = CHOOSING | REFINING | _unread(own.calibrator)
        kept = {key: value for key, value in asdict(own).items() if key not in unread}
        activation = own.activation_spec(bare[name])
        specs = {
            "weight": spec_data(own.weight_spec(bare[name])),
            "activation": spec_data(activation) if activation else None,
        }

        def make() -> nn.Module:
            return compress(own, model, batches, context)[0].eval()

        return Alone(kept | specs, make, (name,))

    skip = [] if method.skip == "auto" else method.skip
    return {
        name: change(name)
        for name in every
        if isinstance(bare[name], nn.Conv2d | nn.Linear) and not any(fnmatchcase(name, each) for each in skip)
    }


def _to_nearest(method: Quantize) -> Quantize:
    """Return ``method`` rounding to nearest with fixed steps: nothing is optimized layer by layer."""
    layers = {pattern: replace(each, rounding=None) for pattern, each in method.layers.items()}
    return replace(method, rounding="nearest", learned_steps=False, layers=layers)


def _unread(calibrator: str) -> set[str]:
    """Return the keys that this calibrator doesn't read."""
    readers = {"percentile": "percentile", "momentum": "moving-average"}
    return {key for key, reader in readers.items() if reader != calibrator}


@dataclass(frozen=True)
class Trial:
    """A method and what it is tried on."""

    method: Quantize
    model: nn.Module
    batches: Batches
    context: Context

    def quantized(self, widths: Mapping[str, int], *, refined: bool = False) -> nn.Module:
        """Return the model at these widths; size and speed don't hang on how weights are rounded, answers do."""
        method = self.method.at_widths(widths)
        chosen = method if refined else _to_nearest(method)
        return compress(chosen, self.model, self.batches, self.context)[0].eval()

    def layers(self) -> list[str]:
        """Return the layers that the method quantizes, by name."""
        return list(alone(self.method, self.model, self.batches, self.context))

    def costs(self, study: Sensitivity, names: Sequence[str], choices: Sequence[int]) -> dict[tuple[str, int], Cost]:
        """Return the cost of each layer at each width but 32."""
        changes: dict[tuple[str, int], tuple[Method, str, Alone]] = {}
        for bits in choices:
            if bits != FLOAT:
                method = self.method.at_widths(dict.fromkeys(names, bits))
                found = alone(method, self.model, self.batches, self.context)
                changes |= {(name, bits): (method, name, found[name]) for name in names}
        return study.costs(changes, f"sensitivity: {self.method.name}")

    def _at(self, name: str, bits: int) -> tuple[nn.Module, Spec, Spec | None]:
        """Return a layer without quantizers, and the specs of its weights and inputs at a width."""
        layer = plain_layer(self.model.get_submodule(name))
        own = replace(self.method.at_widths({}).for_layer(name), weight_bits=bits)
        return layer, own.weight_spec(layer), own.activation_spec(layer)

    def weight_bytes(self, name: str, bits: int) -> float:
        """Return what a layer's weights take in the file, their scales and zero points included."""
        layer = plain_layer(self.model.get_submodule(name))
        weight = layer.get_parameter("weight")
        if bits == FLOAT:
            return 4.0 * weight.numel()
        _, spec, _ = self._at(name, bits)
        packed = container(spec.bits) / 8
        scales = math.prod(scale_shape(spec, weight.shape))
        return math.ceil(weight.numel() * packed) + scales * (4 + packed)

    def integers(self, name: str, bits: int | None = None) -> nn.Module | None:
        """Return the layer as the runtime runs it in integers at a width, or None where it has no such kernel."""
        width = bits or self.method.at_widths({}).for_layer(name).weight_spec().bits
        if width == FLOAT:
            return None
        layer, weight, activation = self._at(name, width)
        quantized = quantize_layer(layer, weight, activation)
        runs = isinstance(quantized, QuantizedConv2d | QuantizedLinear) and has_integer_kernel(quantized)
        return quantized if runs else None

    def times(self, names: Sequence[str], choices: Sequence[int]) -> list[list[float]]:
        """Return each layer's time at each width, as a share of the whole input model's.

        A float layer between integer ones pays for unpacking and rounding at its edges, which no layer alone shows. So
        all layers are put at the widest width that runs in integers, and each is moved to each other width in turn.
        """
        base = self._base(names, choices)
        moved = {(name, bits): {**base, name: bits} for name in names for bits in choices if bits != base[name]}
        variants = {"input": self.model, "base": self.quantized(base)}
        variants |= {f"{name} {bits}": self.quantized(widths) for (name, bits), widths in moved.items()}
        samples = self.measured(variants)

        def share(variant: str) -> float:
            return float(np.mean([samples[variant][b].p50 / samples["input"][b].p50 for b in samples["input"]]))

        whole = share("base")
        each = whole / len(names)
        return [
            [each + (share(f"{name} {bits}") - whole if bits != base[name] else 0.0) for bits in choices]
            for name in names
        ]

    def _base(self, names: Sequence[str], choices: Sequence[int]) -> dict[str, int]:
        """Return the widest choice that runs in integers for each layer, the widest of all where none does."""
        fast = {name: [bits for bits in choices if self.integers(name, bits) is not None] for name in names}
        return {name: max(fast[name] or choices) for name in names}

    def share_of_time(self, changed: nn.Module) -> float:
        samples = self.measured({"before": self.model, "after": changed})
        return float(np.mean([samples["after"][b].p50 / samples["before"][b].p50 for b in samples["before"]]))

    def measured(self, variants: Mapping[str, nn.Module]) -> dict[str, dict[int, latency.Samples]]:
        context = self.context
        return measure.models(variants, context.task.signature(), context.calibration, context.target)
