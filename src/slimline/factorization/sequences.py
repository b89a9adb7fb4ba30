"""Factors in a layer's place: the sequence of thinner layers, its weights, and the quantizers that it carries."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

from slimline.factorization.ranks import Ranks
from slimline.factorization.refitting import refit
from slimline.factorization.whitening import Covariances
from slimline.layers import sharing
from slimline.method import Alone, Batches, Edit
from slimline.quantization.calibration import calibrate
from slimline.quantization.observers import MinMax
from slimline.quantization.quantizers import (
    QuantizedConv2d,
    QuantizedLinear,
    Quantizer,
    quantize_layer,
    quantizers,
    replace,
)
from slimline.task import call

if TYPE_CHECKING:
    from slimline.factorization.plan import LowRank

Structure = Callable[[nn.Module, Ranks], nn.Sequential]


class Factors:
    """What a factorize method makes of one model, at any ranks."""

    def __init__(self, method: LowRank, model: nn.Module, covariance: Covariances, batches: Batches) -> None:
        self.method, self.model, self.covariance = method, model, covariance
        self._batches = batches
        self._kept: dict[tuple[str, tuple[int, ...]], list[Tensor]] = {}

    def keep(self, name: str, ranks: Ranks) -> None:
        """Compute a layer's factors while its covariance is at hand, and keep them for ``factorized``."""
        self._kept[name, tuple(ranks)] = self._weights(name, ranks)

    def factorized(self, ranks: Mapping[str, Ranks]) -> tuple[nn.Module, Edit]:
        """Return a copy of the model with these layers at these ranks, and the edit that says so."""
        edit = Edit(self.method.name, {"ranks": {name: list(value) for name, value in ranks.items()}})
        changed = apply(sharing(self.model), edit, self.method.structure)
        for name in sorted(ranks, key=list(self.covariance).index):
            original = self.model.get_submodule(name)
            parts = changed.get_submodule(name)
            for part, weight in zip(parts.children(), self._weights(name, ranks[name]), strict=True):
                part.weight.data.copy_(weight)  # type: ignore[operator]
            if isinstance(original.bias, Tensor):
                list(parts.children())[-1].bias.data.copy_(original.bias.data)  # type: ignore[operator]
        _calibrate(changed, self.model, list(ranks), self._batches)
        if self.method.refit:
            refit(changed, self.model, list(ranks), self._batches)
            _calibrate(changed, self.model, list(ranks), self._batches)
        return changed, edit

    def alone(self, name: str, ranks: Ranks) -> Alone:
        """Return the change that factorizes one layer at ``ranks``."""

        def make() -> nn.Module:
            return self.factorized({name: ranks})[0]

        strength = {"ranks": list(ranks), "whiten": self.method.whiten, "refit": self.method.refit}
        return Alone(strength, make, (name,))

    def _weights(self, name: str, ranks: Ranks) -> list[Tensor]:
        if (name, tuple(ranks)) in self._kept:
            return self._kept[name, tuple(ranks)]
        return self.method.weights(self.model.get_submodule(name), ranks, self.covariance[name])


def apply(model: nn.Module, edit: Edit, structure: Structure) -> nn.Module:
    """Put the factor sequences in place; each factor of a quantized layer carries quantizers of the layer's specs."""
    for name, ranks in edit.data["ranks"].items():
        layer = model.get_submodule(name)
        sequence = structure(layer, ranks)
        if isinstance(layer, QuantizedConv2d | QuantizedLinear):
            weight = layer.weight_quantizer.spec
            activation = layer.input_quantizer.spec if isinstance(layer.input_quantizer, Quantizer) else None
            inner = activation and dataclasses.replace(activation, smooth=False)
            specs = [activation, *[inner] * (len(sequence) - 1)]
            sequence = nn.Sequential(
                *(quantize_layer(part, weight, own) for part, own in zip(sequence, specs, strict=True))
            )
        replace(model, {name: sequence.train(layer.training)})
    return model


def _calibrate(changed: nn.Module, model: nn.Module, names: Sequence[str], batches: Batches) -> None:
    """Give the new quantizers ranges; the first factor reads what the layer read, so it keeps that range."""
    new = {name for name in quantizers(changed) if any(name.startswith(f"{layer}.") for layer in names)}
    if not new:
        return

    def run() -> None:
        for inputs, _ in batches():
            call(changed, inputs)

    old, own = quantizers(model), quantizers(changed)
    kept = {f"{layer}.0.input_quantizer": f"{layer}.input_quantizer" for layer in names}
    for name, before in kept.items():
        if before in old:
            own[name].load_state_dict(old[before].state_dict())
    calibrate(changed, run, MinMax, only=new - kept.keys())
