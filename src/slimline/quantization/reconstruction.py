"""Layer by layer, the quantized model is drawn towards the float one: AdaRound, then bias correction.

Layers are taken in the order in which they run. Each meets the inputs x̂ that the layers before it, already done, give
it, and answers for the outputs y = Wx + b that it has in the float model; so it makes up for their errors too.

Bias correction (Nagel et al. 2019, arXiv:1906.04721, empirical, appendix D) takes the mean shift of each output channel
off the bias:   b ← b + E[y] − E[Ŵx̂ + b]
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from slimline import layer_hooks
from slimline.method import Batches
from slimline.quantization.rounding import Layer, adaround
from slimline.task import call

ROWS = 1024  # of calibration data that AdaRound holds in memory, for one layer at a time


def reconstruct(
    model: nn.Module,
    reference: nn.Module,
    batches: Batches,
    *,
    rounded: Mapping[str, int],
    corrected: Collection[str],
    seed: int,
) -> list[str]:
    """Round the weights of layers by AdaRound and correct biases, in place, and return a note on each weight.

    ``model`` is quantized and calibrated, ``reference`` the same model in floating point, both in evaluation mode.
    ``rounded`` has the iterations of each layer, ``corrected`` names layers that have a bias.
    """
    names = [name for name in _order(model, batches) if name in rounded or name in corrected]
    notes = []
    for name in names:
        layer = cast(Layer, model.get_submodule(name))
        if name in rounded:
            inputs = _seen(model, name, batches, of_input=True)
            targets = _seen(reference, name, batches, of_input=False)
            weight, share = adaround(layer, inputs, targets, rounded[name], seed)
            layer.weight.data.copy_(weight)
            notes.append(f"{name}: AdaRound leaves {share:.0%} of the squared error of rounding to the nearest")
        if name in corrected:
            assert layer.bias is not None  # noqa: S101  (apply gave it one)
            layer.bias.data += _mean(reference, name, batches) - _mean(model, name, batches)
    return notes


def _order(model: nn.Module, batches: Batches) -> list[str]:
    """Return the names of all layers in the order in which they first run."""
    seen: dict[str, None] = {}

    def note(name: str, *_: Any) -> None:
        seen.setdefault(name)

    with torch.no_grad(), layer_hooks.before(model, [name for name, _ in model.named_modules()], note):
        call(model, next(iter(batches()))[0])
    return list(seen)


@torch.no_grad()
def _seen(model: nn.Module, name: str, batches: Batches, *, of_input: bool) -> Tensor:
    """Return up to ROWS rows of a layer's outputs, or of its inputs as its weight meets them (quantized)."""
    rows: list[Tensor] = []

    def see(_name: str, layer: Layer, args: tuple[Tensor, ...], out: Tensor) -> None:
        rows.append(layer.input_quantizer(args[0]) if of_input else out)

    with layer_hooks.after(model, [name], see):
        for inputs, _ in batches():
            call(model, inputs)
            if sum(map(len, rows)) >= ROWS:
                break
    return torch.cat(rows)[:ROWS]


@torch.no_grad()
def _mean(model: nn.Module, name: str, batches: Batches) -> Tensor:
    """Return the mean of each output channel of a layer over all calibration data."""
    total, count = torch.zeros(()), 0

    def see(_name: str, layer: nn.Module, _args: Any, out: Tensor) -> None:
        nonlocal total, count
        values = out.movedim(1 if isinstance(layer, nn.Conv2d) else -1, 0).flatten(1)
        total, count = total + values.double().sum(1), count + values.shape[1]

    with layer_hooks.after(model, [name], see):
        for inputs, _ in batches():
            call(model, inputs)
    return (total / count).float()
