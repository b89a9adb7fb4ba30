"""``skip: auto``: the choice between one width and floating point.

A layer stays as it is when its loss alone rises by more than ``max_loss``, or when the whole model runs faster without
that layer's quantizers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from slimline import latency, measure
from slimline.errors import MethodError
from slimline.quantization.costs import Trial, alone
from slimline.quantization.grids import FLOAT
from slimline.quantization.quantizers import is_quantized, plain_layer
from slimline.sensitivity import Sensitivity

CONFIDENCE = 0.95


def skipped(trial: Trial) -> dict[str, Any]:
    """Choose which layers stay in floating point at the method's own widths."""
    method, context = trial.method, trial.context
    if is_quantized(trial.model):
        raise MethodError(f"{context.where}.skip: auto: the model carries quantizers, and this method takes none off")
    names = trial.layers()
    changes = alone(method, trial.model, trial.batches, context)
    study = Sensitivity(trial.model, context)
    costs = study.costs({name: (method, name, changes[name]) for name in names}, f"sensitivity: {method.name}")
    fragile = [name for name in names if costs[name].rise > method.max_loss]
    layers: dict[str, dict[str, Any]] = {}
    for name in names:
        bits = method.for_layer(name).weight_spec().bits
        rise = f"alone it raises the validation loss by {costs[name].rise:.4f}"
        if name in fragile:
            layers[name] = {
                "bits": FLOAT,
                "why": f"stays in floating point: {rise}, max_loss is {method.max_loss:g}",
            }
        else:
            layers[name] = {"bits": bits, "why": f"{bits} bits: {rise}"}
    if len(fragile) == len(names):
        raise MethodError(
            f"{context.where}.max_loss: {method.max_loss:g} leaves no layer to quantize: the least that one costs "
            f"is {min(each.rise for each in costs.values()):.4f}; raise it"
        )
    for name, gain in _slower(trial, names, fragile).items():
        layers[name] = {
            "bits": FLOAT,
            "why": f"stays in floating point: without its quantizers the whole model runs {gain:.2f}× as fast",
        }
    floats = sum(entry["bits"] == FLOAT for entry in layers.values())
    return {"layers": layers, "summary": f"{floats} of {len(names)} layers stay in floating point"}


def _slower(trial: Trial, names: Sequence[str], fragile: Sequence[str]) -> dict[str, float]:
    """Return the layers without whose quantizers the whole model is surely faster, and by which factor.

    A layer alone pays for rounding its input and unpacking its output, which its neighbours do in the whole model:
    whoever is faster even so is so for sure, only the others are tried there.
    """
    fast = [name for name in names if name not in fragile and trial.integers(name)]
    gains = {name: 1 / share for name, share in _alone_times(trial, fast).items()}
    suspects = [name for name, gain in gains.items() if gain < 1]
    if not suspects or len(suspects) + len(fragile) == len(names):
        return {}
    floats = dict.fromkeys(fragile, FLOAT)
    variants = {"all": trial.quantized(floats)}
    variants |= {name: trial.quantized({**floats, name: FLOAT}) for name in suspects}
    samples = trial.measured(variants)
    faster = {}
    for name in suspects:
        ratios = [
            latency.speedup(samples["all"][b], samples[name][b], CONFIDENCE) for b in trial.context.target.batch_sizes
        ]
        if np.mean([np.log(low) for _, (low, _) in ratios]) > 0:
            faster[name] = float(np.exp(np.mean([np.log(ratio) for ratio, _ in ratios])))
    return faster


def _alone_times(trial: Trial, names: Sequence[str]) -> dict[str, float]:
    """Return each layer's time in integers over that in floating point, alone; layers alike share a measurement."""
    shapes = measure.input_shapes(trial.model, list(names), measure.typical_inputs(trial.context.calibration))
    known: dict[str, float] = {}
    found = {}
    for name in names:
        layer, integers = plain_layer(trial.model.get_submodule(name)), trial.integers(name, 8)
        key = f"{layer} {shapes[name]}"
        if key not in known and integers is not None:
            seconds = measure.layers({"float": layer, "int": integers}, shapes[name], trial.context.target)
            known[key] = 1 / measure.gain(seconds["float"], seconds["int"])
        found[name] = known.get(key, 1.0)
    return found
