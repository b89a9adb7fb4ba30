"""Ranks chosen by measurement (``rank: auto``), or as a share of size or energy asks: of each layer, and why.

A candidate is kept when the target runs it faster by ``min_gain`` (measured, geometric mean over the target's batch
sizes), raises the validation loss alone by no more than ``max_loss`` (``slimline.sensitivity``), and the validation
metric stays within ``max_drop`` of the input model's, all kept layers together and before recovery. At the end the
whole model is measured against the one that came in: if it isn't faster beyond the interval, every layer stays as it
was.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import nn

from slimline import latency, measure, metrics
from slimline.factorization.ranks import Energy, Ranks, Ratio, candidate_ranks, rank_of_energy, round_to
from slimline.factorization.sequences import Factors, apply
from slimline.layers import macs
from slimline.method import Context, Edit
from slimline.quantization.quantizers import plain, plain_layer

if TYPE_CHECKING:
    from slimline.factorization.plan import LowRank

Layers = dict[str, dict[str, Any]]  # by name: ranks, None where a layer stays, and why
CONFIDENCE = 0.95


def choose(factors: Factors, context: Context, guard: Callable[[str, Ranks], float | None]) -> dict[str, Any]:
    """Measure every layer at every candidate rank and keep what pays, the largest saving first.

    ``guard`` returns by how much a layer at some ranks raises the validation loss alone, None where that isn't asked.
    """
    method, model, task = factors.method, factors.model, context.task
    sign = 1 if task.higher_is_better else -1
    start = metrics.evaluate(model, task, context.validation)[task.primary]
    min_gain, max_drop = method.min_gain, method.max_drop
    layers: Layers = {}
    paying: list[tuple[float, str, Ranks, float]] = []
    reached = list(factors.covariance.shapes)
    shapes = measure.input_shapes(model, reached, measure.typical_inputs(context.calibration))
    for name in reached:
        layer, shape = model.get_submodule(name), shapes[name]
        sizes = [len(spectrum) for spectrum in method.spectra(layer, factors.covariance[name])]
        every = candidate_ranks(sizes, method.ratios, method.multiple)
        options = [ranks for ranks in every if cost(method.structure(layer, ranks), shape) < cost(layer, shape)]
        if not options:
            layers[name] = {"ranks": None, "why": "stays: too narrow for a rank that saves work"}
            continue
        variants = {"whole": layer}
        for ranks in options:
            edit = Edit("", {"ranks": {"0": ranks}})
            trial = apply(nn.Sequential(copy.deepcopy(layer)), edit, method.structure)
            variants["x".join(map(str, ranks))] = trial.get_submodule("0")
        seconds = measure.layers(variants, shape, context.target)
        gains = {"x".join(map(str, r)): measure.gain(seconds["whole"], seconds["x".join(map(str, r))]) for r in options}
        layers[name] = {"ranks": None, "gains": {key: round(value, 3) for key, value in gains.items()}}
        best = max(gains.values())
        layers[name]["why"] = f"stays: its fastest rank runs at {best:.2f}× the layer's speed, {min_gain:.2f}× is asked"
        for ranks in options:
            speed = gains["x".join(map(str, ranks))]
            if speed >= min_gain:
                saved = float(np.mean([seconds["whole"][b] * (1 - 1 / speed) / b for b in context.target.batch_sizes]))
                paying.append((saved, name, list(ranks), speed))
                factors.keep(name, ranks)
    chosen: dict[str, Ranks] = {}
    for _, name, ranks, speed in sorted(paying, reverse=True):
        if name in chosen:
            continue
        rise = guard(name, ranks)
        if rise is not None and method.max_loss is not None and rise > method.max_loss:
            layers[name]["why"] = (
                f"stays: ranks {ranks} are {speed:.2f}× faster but alone raise the validation loss by {rise:.4f}, "
                f"max_loss is {method.max_loss:g}"
            )
            continue
        trial, _ = factors.factorized({**chosen, name: ranks})
        drop = sign * (start - metrics.evaluate(trial, task, context.validation)[task.primary])
        if drop <= max_drop:
            chosen[name] = ranks
            layers[name]["ranks"] = ranks
            layers[name]["why"] = f"ranks {ranks}: {speed:.2f}× faster alone, validation drop {drop:.4f} so far"
        else:
            layers[name]["why"] = f"stays: ranks {ranks} are {speed:.2f}× faster but cost {drop:.4f} of {task.primary}"
    return _confirm(factors, context, chosen, layers)


def _confirm(factors: Factors, context: Context, chosen: dict[str, Ranks], layers: Layers) -> dict[str, Any]:
    """Measure the whole model with and without the chosen factors; undo them unless it is surely faster."""
    if not chosen:
        return {"layers": layers, "summary": "no layer pays on this target: the model stays as it is"}
    variants = {"before": factors.model, "after": factors.factorized(chosen)[0]}
    samples = measure.models(variants, context.task.signature(), context.calibration, context.target)
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


def as_asked(factors: Factors) -> dict[str, Any]:
    """Give every layer the rank that ``ratio`` or ``energy`` asks for, unless it would cost more work than it saves."""
    method, covariance = factors.method, factors.covariance
    layers: Layers = {}
    for name, shape in covariance.shapes.items():
        layer = factors.model.get_submodule(name)
        spectra = method.spectra(layer, covariance[name])
        ranks = []
        for spectrum in spectra:
            if isinstance(method.rank, Ratio):
                want = len(spectrum) * method.rank.ratio
            else:
                want = rank_of_energy(spectrum, cast(Energy, method.rank).energy)
            ranks.append(min(max(round_to(want, method.multiple), method.multiple), len(spectrum)))
        work = cost(method.structure(layer, ranks), shape) / cost(layer, shape)
        if work >= 1:
            layers[name] = {"ranks": None, "why": f"stays: ranks {ranks} would take {work:.2f}× its multiply-adds"}
            continue
        kept = [
            float(each[:rank].square().sum() / each.square().sum()) for rank, each in zip(ranks, spectra, strict=True)
        ]
        shown = ", ".join(f"{share:.1%}" for share in kept)
        why = f"ranks {ranks}: {work:.2f}× its multiply-adds, keeps {shown} of the energy"
        layers[name] = {"ranks": ranks, "why": why}
    done = sum(1 for entry in layers.values() if entry["ranks"])
    return {"layers": layers, "summary": f"{done} of {len(layers)} layers factorized as asked"}


def every(method: LowRank, model: nn.Module, considered: Layers) -> Layers:
    """Return the decisions on all convolutions and linear layers: those ``considered``, and why others weren't."""
    layers: Layers = {}
    for name, layer in model.named_modules():
        if name in considered:
            layers[name] = considered[name]
        elif isinstance(layer, nn.Conv2d | nn.Linear) or method.takes(layer):
            globs = [each for each in method.skip if fnmatchcase(name, each)]
            why = f"skip {globs[0]!r}" if globs else "no data reaches it"
            layers[name] = {"ranks": None, "why": f"stays: {why if method.takes(layer) else f'not {method.kinds}'}"}
    return layers


def cost(module: nn.Module, shape: Sequence[int]) -> int:
    """Return the multiply-adds of a layer or a sequence on one input of ``shape`` (without the batch)."""
    bare = plain(module) if isinstance(module, nn.Sequential) else copy.deepcopy(plain_layer(module))
    bare = bare if isinstance(bare, nn.Sequential) else nn.Sequential(bare)
    return sum(macs(bare, lambda: bare(torch.zeros(1, *shape))).values())
