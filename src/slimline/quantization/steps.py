"""The steps of quantizing, each on a model that carries quantizers: what a method's keys ask for, done in place.

Equalizing and smoothing move ranges before there are any; calibration sets them; reconstruction makes up for rounding.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from torch import Tensor, nn

from slimline.errors import MethodError
from slimline.method import Batches, Context, load_tensors
from slimline.quantization import calibration, equalization, reconstruction, smoothing
from slimline.quantization.keys import QuantizeKeys
from slimline.quantization.placement import kept_layers, layer_of
from slimline.quantization.quantizers import (
    QuantizedConv2d,
    QuantizedEmbedding,
    QuantizedLinear,
    Quantizer,
    plain,
    quantizers,
)
from slimline.quantization.smoothing import Move


def moves_weights(method: QuantizeKeys, own: Mapping[str, QuantizeKeys]) -> bool:
    """Return whether weights themselves change before or after they get ranges."""
    rounded = any(each.rounding == "adaround" for each in own.values())
    return method.equalize or method.smooth is not None or method.bias_correction or rounded


def find_moves(method: QuantizeKeys, model: nn.Module, inputs: dict[str, Tensor], rounded: Iterable[str]) -> list[Move]:
    """Return where outliers can move, among the layers ``rounded``, whose inputs are."""
    if method.smooth is None:
        return []
    return smoothing.find_moves(plain(model, share=True), inputs, rounded)


def equalize(
    method: QuantizeKeys, quantized: nn.Module, inputs: dict[str, Tensor], layers: list[str], context: Context
) -> list[str]:
    """Equalize the chosen layers of a model whose quantizers have no ranges yet; those of others would be wrong."""
    if not method.equalize:
        return []
    if kept := kept_layers(quantized, layers):
        raise MethodError(
            f"{context.where}.equalize: {kept[0]} keeps the ranges of an earlier quantization, which "
            "equalizing would make wrong; quantize it too, or equalize the first time"
        )
    bare = plain(quantized)
    notes = equalization.equalize(bare, inputs, layers)
    load_tensors(quantized, bare.state_dict())
    return notes


def smooth(
    method: QuantizeKeys, quantized: nn.Module, moves: list[Move], batches: Batches, layers: list[str], context: Context
) -> list[str]:
    """Move outliers of the inputs of the chosen layers, whose quantizers have no ranges yet, into their weights.

    A layer that keeps the factor of an earlier smoothing keeps the weight that goes with it.
    """
    if method.smooth is None:
        return []
    bare = plain(quantized, share=True)
    try:
        factors = smoothing.smooth(bare, moves, method.smooth, batches)
    except MethodError as error:
        raise MethodError(f"{context.where}.{error}") from error
    kept = kept_layers(quantized, layers)
    load_tensors(
        quantized, {name: each for name, each in bare.state_dict().items() if name.rpartition(".")[0] not in kept}
    )
    for name, factor in factors.items():
        cast(Quantizer, quantized.get_submodule(f"{name}.input_quantizer")).factor.copy_(factor)
    return [smoothing.note(moves)]


def calibrate(model: nn.Module, run: Callable[[], None], own: Mapping[str, QuantizeKeys]) -> None:
    """Calibrate ``model``, the layers of each calibrator together, after all their weights have ranges."""
    for name in own:
        layer = model.get_submodule(name)
        if isinstance(layer, QuantizedConv2d | QuantizedLinear | QuantizedEmbedding):
            layer.weight_quantizer.fit(layer.weight)
    together: dict[tuple[Any, ...], list[str]] = defaultdict(list)
    for name, each in own.items():
        together[each.calibrator, each.percentile, each.momentum].append(name)
    for names in together.values():
        only = [each for each in quantizers(model) if layer_of(each) in names]
        calibration.calibrate(model, run, own[names[0]].observer, only=only)


def reconstruct(
    method: QuantizeKeys, quantized: nn.Module, batches: Batches, own: Mapping[str, QuantizeKeys], context: Context
) -> list[str]:
    """Round weights and correct biases as asked; weights that AdaRound takes get the grid of least error first."""
    weighted = [name for name in own if isinstance(quantized.get_submodule(name), QuantizedConv2d | QuantizedLinear)]
    rounded = {name: own[name].rounding_steps for name in weighted if own[name].rounding == "adaround"}
    if not rounded and not method.bias_correction:
        return []
    for name in rounded:
        layer = cast(QuantizedConv2d | QuantizedLinear, quantized.get_submodule(name))
        layer.weight_quantizer.fit_least_error(layer.weight)
    corrected = weighted if method.bias_correction else []
    return reconstruction.reconstruct(
        quantized.eval(), plain(quantized).eval(), batches, rounded=rounded, corrected=corrected, seed=context.seed
    )
