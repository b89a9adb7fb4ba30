"""What the factorize methods share: which layers and ranks pay on the target, and where the factors go.

A layer is replaced by a sequence of thinner ones. A candidate is kept when the target runs it faster by ``min_gain``
(measured, geometric mean over the target's batch sizes) and the validation metric stays within ``max_drop`` of the
input model's, all kept layers together and before recovery. At the end the whole model is measured against the one that
came in: if it isn't faster beyond the interval, every layer stays as it was.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from slimline import latency, measure, metrics
from slimline.method import Batches, Context, Edit, Plan
from slimline.observers import MinMax
from slimline.quantizers import (
    QuantizedConv2d,
    QuantizedLinear,
    Quantizer,
    calibrate,
    quantize_layer,
    quantizers,
    replace,
)
from slimline.task import call

Ranks = list[int]
Structure = Callable[[nn.Module, Ranks], nn.Sequential]
Weights = Callable[[nn.Module, Ranks, Tensor], list[Tensor]]
CONFIDENCE = 0.95


def plan(
    method: str,
    model: nn.Module,
    batches: Batches,
    context: Context,
    *,
    candidates: Mapping[str, Sequence[Ranks]],
    structure: Structure,
    weights: Weights,
    min_gain: float,
    max_drop: float,
) -> Plan:
    """Choose layers and ranks by measurement (or replay the recorded choice) and compute their factors.

    ``candidates`` lists the ranks to try for each layer; ``structure(layer, ranks)`` builds the sequence and
    ``weights(layer, ranks, covariance)`` its weights, ``covariance`` being E[x xᵀ] of the layer's input channels.
    """
    covariance = covariances(model, list(candidates), batches)

    def factorized(ranks: Mapping[str, Ranks]) -> tuple[nn.Module, Edit]:
        edit = Edit(method, {"ranks": {name: list(value) for name, value in ranks.items()}})
        changed = apply(copy.deepcopy(model), edit, structure)
        for name, value in ranks.items():
            original = model.get_submodule(name)
            parts = changed.get_submodule(name)
            for part, weight in zip(parts.children(), weights(original, value, covariance[name]), strict=True):
                part.weight.data.copy_(weight)  # type: ignore[operator]
            if isinstance(original.bias, Tensor):
                list(parts.children())[-1].bias.data.copy_(original.bias.data)  # type: ignore[operator]
        _calibrate(changed, model, list(ranks), batches)
        return changed, edit

    def decide() -> dict[str, Any]:
        return _choose(model, context, candidates, structure, factorized, batches, min_gain=min_gain, max_drop=max_drop)

    choice = context.decisions.choose(method, decide)
    notes = [f"{name}: {entry['why']}" for name, entry in choice["layers"].items()] + [choice["summary"]]
    ranks = {name: entry["ranks"] for name, entry in choice["layers"].items() if entry["ranks"]}
    changed, edit = factorized(ranks)
    before, after = model.state_dict(), changed.state_dict()
    tensors = {
        name: tensor for name, tensor in after.items() if name not in before or before[name].shape != tensor.shape
    }
    return Plan(edit, tensors, notes)


def apply(model: nn.Module, edit: Edit, structure: Structure) -> nn.Module:
    """Put the factor sequences in place; each factor of a quantized layer carries quantizers of the layer's specs."""
    for name, ranks in edit.data["ranks"].items():
        layer = model.get_submodule(name)
        sequence = structure(layer, ranks)
        if isinstance(layer, QuantizedConv2d | QuantizedLinear):
            weight = layer.weight_quantizer.spec
            activation = layer.input_quantizer.spec if isinstance(layer.input_quantizer, Quantizer) else None
            sequence = nn.Sequential(*(quantize_layer(part, weight, activation) for part in sequence))
        replace(model, {name: sequence.train(layer.training)})
    return model


def candidate_ranks(sizes: Sequence[int], ratios: Sequence[float], multiple: int) -> list[Ranks]:
    """Return one rank a size for each ratio, rounded to ``multiple`` and below the size, without repeats."""
    found: list[Ranks] = []
    for ratio in sorted(ratios):
        ranks = [max(multiple, round(size * ratio / multiple) * multiple) for size in sizes]
        if all(rank < size for rank, size in zip(ranks, sizes, strict=True)) and ranks not in found:
            found.append(ranks)
    return found


@torch.no_grad()
def covariances(model: nn.Module, names: Sequence[str], batches: Batches) -> dict[str, Tensor]:
    """Return E[x xᵀ] [channels × channels, float64] of each named layer's input over calibration data and positions."""
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def see(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            x = args[0].detach().double()
            quantizer = getattr(module, "input_quantizer", None)
            if isinstance(quantizer, Quantizer):
                x = quantizer(args[0]).double()
            axis = 1 if isinstance(module, nn.Conv2d) else -1
            rows = x.movedim(axis, -1).flatten(0, -2)
            sums[name] = sums.get(name, torch.zeros((), dtype=torch.float64)) + rows.T @ rows
            counts[name] = counts.get(name, 0) + len(rows)

        return hook

    hooks = [model.get_submodule(name).register_forward_pre_hook(see(name)) for name in names]
    model.eval()
    try:
        for inputs, _ in batches():
            call(model, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: sums[name] / counts[name] for name in names if name in sums}


def whitening(covariance: Tensor) -> Tensor:
    """Return L with L Lᵀ = covariance + εI: an error of W·L is the error of the layer's output (Wang et al. 2024)."""
    n = len(covariance)
    ridge = 1e-6 * covariance.diagonal().mean().clamp(min=1e-12)
    lower: Tensor = torch.linalg.cholesky(covariance + ridge * torch.eye(n, dtype=covariance.dtype))
    return lower


def _calibrate(changed: nn.Module, model: nn.Module, names: Sequence[str], batches: Batches) -> None:
    """Give the new quantizers ranges; the first factor reads what the layer read, so it keeps that range."""
    new = {name for name in quantizers(changed) if any(name.startswith(f"{layer}.") for layer in names)}
    if not new:
        return

    def run() -> None:
        for inputs, _ in batches():
            call(changed, inputs)

    calibrate(changed, run, MinMax, only=new)
    old = quantizers(model)
    for layer in names:
        if f"{layer}.input_quantizer" in old:
            first = quantizers(changed)[f"{layer}.0.input_quantizer"]
            first.load_state_dict(old[f"{layer}.input_quantizer"].state_dict())


def _choose(
    model: nn.Module,
    context: Context,
    candidates: Mapping[str, Sequence[Ranks]],
    structure: Structure,
    factorized: Callable[[Mapping[str, Ranks]], tuple[nn.Module, Edit]],
    batches: Batches,
    *,
    min_gain: float,
    max_drop: float,
) -> dict[str, Any]:
    task = context.task
    sign = 1 if task.higher_is_better else -1
    start = metrics.evaluate(model, task, context.validation)[task.primary]
    inputs, _ = next(iter(batches()))
    shapes = measure.input_shapes(model, list(candidates), inputs)
    layers: dict[str, dict[str, Any]] = {}
    paying: list[tuple[float, str, Ranks, float]] = []
    for name, options in candidates.items():
        if not options or name not in shapes:
            layers[name] = {"ranks": None, "why": "stays: too narrow for a rank that saves work"}
            continue
        layer = model.get_submodule(name)
        variants = {"whole": layer}
        for ranks in options:
            edit = Edit("", {"ranks": {"0": ranks}})
            trial = apply(nn.Sequential(copy.deepcopy(layer)), edit, structure)
            variants["x".join(map(str, ranks))] = trial.get_submodule("0")
        seconds = measure.layers(variants, shapes[name], context.target)
        gains = {"x".join(map(str, r)): measure.gain(seconds["whole"], seconds["x".join(map(str, r))]) for r in options}
        layers[name] = {"ranks": None, "gains": {key: round(value, 3) for key, value in gains.items()}}
        best = max(gains.values())
        layers[name]["why"] = f"stays: its fastest rank runs at {best:.2f}× the layer's speed, {min_gain:.2f}× is asked"
        for ranks in options:
            speed = gains["x".join(map(str, ranks))]
            if speed >= min_gain:
                saved = float(np.mean([seconds["whole"][b] * (1 - 1 / speed) / b for b in context.target.batch_sizes]))
                paying.append((saved, name, list(ranks), speed))
    chosen: dict[str, Ranks] = {}
    for _, name, ranks, speed in sorted(paying, reverse=True):
        if name in chosen:
            continue
        trial, _ = factorized({**chosen, name: ranks})
        drop = sign * (start - metrics.evaluate(trial, task, context.validation)[task.primary])
        if drop <= max_drop:
            chosen[name] = ranks
            layers[name]["ranks"] = ranks
            layers[name]["why"] = f"ranks {ranks}: {speed:.2f}× faster alone, validation drop {drop:.4f} so far"
        else:
            layers[name]["why"] = f"stays: ranks {ranks} are {speed:.2f}× faster but cost {drop:.4f} of {task.primary}"
    return _confirm(model, context, factorized, chosen, layers)


def _confirm(
    model: nn.Module,
    context: Context,
    factorized: Callable[[Mapping[str, Ranks]], tuple[nn.Module, Edit]],
    chosen: dict[str, Ranks],
    layers: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    """Measure the whole model with and without the chosen factors; undo them unless it is surely faster."""
    if not chosen:
        return {"layers": layers, "summary": "no layer pays on this target: the model stays as it is"}
    rows, _ = context.calibration[slice(0, max(context.target.batch_sizes))]
    variants = {"before": model, "after": factorized(chosen)[0]}
    samples = measure.models(variants, context.task.signature(), rows, context.target)
    ratios = {
        batch: latency.speedup(samples["before"][batch], samples["after"][batch], CONFIDENCE)
        for batch in context.target.batch_sizes
    }
    shown = ", ".join(
        f"batch {batch}: {ratio:.2f}× [{low:.2f}, {high:.2f}]" for batch, (ratio, (low, high)) in ratios.items()
    )
    if np.mean([np.log(low) for _, (low, _) in ratios.values()]) > 0:
        return {"layers": layers, "summary": f"{len(chosen)} layers factorized; whole model {shown}"}
    for name in chosen:
        layers[name]["ranks"] = None
        layers[name]["why"] = f"stays: alone it gains, the whole model doesn't ({shown})"
    return {"layers": layers, "summary": f"no gain in the whole model ({shown}): it stays as it is"}
