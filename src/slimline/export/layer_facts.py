"""What each layer is and holds, as data for the report: shape, cost, zeros, widths, rounding error, distributions.

The rounding error of a quantized layer is its signal-to-quantization-noise ratio, in dB:

    SQNR = 10 · log₁₀ (Σ y² / Σ (y − ŷ)²)

ŷ is the layer's output and y that of the same layer without its quantizers, both on the input that reaches it in the
quantized model; the sums go over rows, channels and positions. So it is the error of this layer's own weights and
inputs: what layers before it did isn't in it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from slimline import layer_hooks
from slimline.export import histogram, stored
from slimline.export.facts import macs_by_layer
from slimline.export.histogram import Histogram
from slimline.pruning import masks
from slimline.quantization.quantizers import Quantizer, plain_layer
from slimline.task import Split, call, tensors

FORMAT = 1
FILE = "layers.json"
ROWS = 256
POSITIONS = 2**14  # of rows of several lengths
BATCH = 64
FLOAT_ATTRIBUTES = ("kernel_size", "stride", "groups")


@dataclass
class _Seen:
    """What passed through one layer."""

    plain: nn.Module
    quantizers: list[Quantizer | None]
    inputs: list[Histogram] = field(default_factory=list)
    shape: tuple[list[int], list[int]] | None = None
    clipped: list[int] = field(default_factory=list)
    values: list[int] = field(default_factory=list)
    signal: float = 0.0
    noise: float = 0.0


def of_interest(model: nn.Module) -> dict[str, nn.Module]:
    """Return the layers that are described: those with a weight of two axes or more, and those with quantizers."""
    found = {}
    for name, module in model.named_modules():
        weight = module._parameters.get("weight")  # noqa: SLF001  (its own, not one that is computed)
        if name and ((weight is not None and weight.ndim >= 2) or plain_layer(module) is not module):
            found[name] = module
    return found


def describe(model: nn.Module, rows: Split, file: Path, signature: Mapping[str, Any]) -> dict[str, Any]:
    """Return layers.json: every layer of interest in the order of the model, measured on ``ROWS`` of the ``rows``.

    Of rows of several lengths they are fewer, as many as have ``POSITIONS``, and shapes are those of the longest.
    ``file`` is the ONNX file that the model was exported to.
    """
    layers = of_interest(model)
    rows = rows.head(ROWS)
    if rows.padding is not None:
        rows = rows.head(max(1, int(POSITIONS / rows.lengths.mean())))
    seen, order = _observe(model, layers, rows)
    weights = {name: cast(Tensor, layer.weight) for name, layer in layers.items() if hasattr(layer, "weight")}
    calls = [(name, weights[name].shape) for name in order if name in weights]
    sizes, macs = stored.by_layer(file, calls), macs_by_layer(model, signature)
    described = []
    for name, layer in layers.items():
        entry: dict[str, Any] = {"name": name, **_structure(layer, seen[name])}
        entry |= {"macs": macs.get(name, 0), "bytes": sizes.get(name)}
        entry |= _weights(layer) if name in weights else {}
        entry |= {"inputs": _inputs(seen[name]), "sqnr": _decibels(seen[name])}
        described.append(entry)
    return {"format": FORMAT, "rows": len(rows), "layers": described}


def summary(layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what facts.json says of all layers together.

    ``sparsity`` is the share of stored weights that are zero; ``bits`` counts {width: weights} and {width: layers with
    so wide inputs}, of the layers that have weights.
    """
    weighted = [layer for layer in layers if "weight" in layer]
    total = sum(math.prod(layer["weight"]) for layer in weighted)
    zeros = sum(layer["zeros"] * math.prod(layer["weight"]) for layer in weighted)
    bits: dict[str, Counter[str]] = {"weights": Counter(), "activations": Counter()}
    for layer in weighted:
        bits["weights"][str(layer["bits"])] += math.prod(layer["weight"])
        quantizer = next((each["quantizer"] for each in layer["inputs"]), None)
        bits["activations"][str(quantizer["bits"] if quantizer else layer["float_bits"])] += 1
    return {"sparsity": zeros / total if total else 0.0, "bits": {kind: dict(each) for kind, each in bits.items()}}


def _structure(layer: nn.Module, seen: _Seen) -> dict[str, Any]:
    """Return kind and shapes; those of input and output lack the batch, and are None where the layer wasn't called."""
    found: dict[str, Any] = {"kind": type(seen.plain).__name__}
    for name in FLOAT_ATTRIBUTES:
        value = getattr(layer, name, None)
        if value is not None:
            found[name] = list(value) if isinstance(value, tuple) else value
    found["input"], found["output"] = seen.shape or (None, None)
    return found


def _weights(layer: nn.Module) -> dict[str, Any]:
    """Return what is known of the weight: shape, share of zeros as stored, masks, widths, distributions.

    ``values`` is the histogram of the weights as stored; ``float`` is that before rounding, for a quantized layer.
    """
    weight = masks.weight(layer)
    quantizer = getattr(layer, "weight_quantizer", None)
    width = 8 * weight.element_size()
    found: dict[str, Any] = {"weight": list(weight.shape), "params": sum(each.numel() for each in _own(layer))}
    used = weight
    if isinstance(quantizer, Quantizer):
        with torch.no_grad():
            used = quantizer(weight)
        found["quantizer"] = _quantizer(quantizer)
        found["float"] = histogram.of(weight)
    mask = masks.mask_of(layer)
    return found | {
        "bits": found["quantizer"]["bits"] if "quantizer" in found else width,
        "float_bits": width,
        "zeros": _share(int((used == 0).sum()), used.numel()),
        "masked": None if mask is None else _share(int((~mask).sum()), mask.numel()),
        "values": histogram.of(used),
    }


def _own(layer: nn.Module) -> list[nn.Parameter]:
    return [each for name, each in layer.named_parameters(recurse=False) if name in {"weight", "bias"}]


def _quantizer(quantizer: Quantizer) -> dict[str, Any]:
    """Return a quantizer's spec and the ends of its range; of several scales, the widest range."""
    spec, scale = quantizer.spec, quantizer.steps().detach().double()
    zero = quantizer.zero_point.double()
    low, high = ((end - zero) * scale for end in (spec.qmin, spec.qmax))
    return {
        "bits": spec.bits, "scheme": spec.scheme, "axis": spec.axis, "block": spec.block, "learned": spec.learned,
        "low": _rounded(float(low.min())), "high": _rounded(float(high.max())),
    }  # fmt: skip


def _inputs(seen: _Seen) -> list[dict[str, Any]]:
    """Return each input's histogram before its quantizer, the quantizer, and the share of values outside its range."""
    return [
        {
            "values": each.data(),
            "quantizer": _quantizer(quantizer) if quantizer else None,
            "clipped": _share(clipped, values) if quantizer else None,
        }
        for each, quantizer, clipped, values in zip(
            seen.inputs, seen.quantizers, seen.clipped, seen.values, strict=False
        )
    ]


def _decibels(seen: _Seen) -> float | None:
    """Return the SQNR in dB; None of a layer without quantizers, and where nothing was lost or nothing was there."""
    if not seen.noise or not seen.signal:
        return None
    return round(10 * math.log10(seen.signal / seen.noise), 2)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def _input_quantizers(layer: nn.Module) -> list[Quantizer | None]:
    """Return the quantizer of each input, in order."""
    several = getattr(layer, "quantizers", None)
    if isinstance(several, nn.ModuleList):
        return [each if isinstance(each, Quantizer) else None for each in several]
    own = getattr(layer, "input_quantizer", None)
    return [own if isinstance(own, Quantizer) else None]


@torch.inference_mode()
def _observe(model: nn.Module, layers: Mapping[str, nn.Module], rows: Split) -> tuple[dict[str, _Seen], list[str]]:
    """Put ``rows`` through the model; return what each layer saw, and the layers in the order of the first calls."""
    seen = {name: _Seen(plain_layer(layer), _input_quantizers(layer)) for name, layer in layers.items()}
    order: list[str] = []

    def see(name: str, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        own = seen[name]
        given = [each for each in (*args, *kwargs.values()) if isinstance(each, Tensor) and each.is_floating_point()]
        if given and isinstance(out, Tensor):
            own.shape = list(given[0].shape[1:]), list(out.shape[1:])
        if first:
            order.append(name)
        _count(own, given)
        if own.plain is not layer and isinstance(out, Tensor):
            y = own.plain.forward(*args, **kwargs).double()  # forward: the plain layer shares this hook
            own.signal += float(y.square().sum())
            own.noise += float((y - out.double()).square().sum())

    was_training = model.training
    model.eval()
    first = True
    try:
        with layer_hooks.after(model, layers, see, with_kwargs=True):
            for chosen in rows.batches(BATCH):
                call(model, tensors(rows[chosen][0]))
                first = False
    finally:
        model.train(was_training)
    return seen, order


def _count(own: _Seen, given: Sequence[Tensor]) -> None:
    """Add a layer's inputs to its histograms, and count those that its quantizers clip."""
    own.quantizers += [None] * (len(given) - len(own.quantizers))
    for at, x in enumerate(given):
        if at == len(own.inputs):
            own.inputs.append(Histogram())
            own.clipped.append(0)
            own.values.append(0)
        own.inputs[at].add(x)
        quantizer = own.quantizers[at]
        if quantizer is not None:
            ends = _quantizer(quantizer)
            rounded = x * quantizer.factor if quantizer.spec.smooth else x
            own.clipped[at] += int(((rounded < ends["low"]) | (rounded > ends["high"])).sum())
        own.values[at] += x.numel()
