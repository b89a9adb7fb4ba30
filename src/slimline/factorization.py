"""What the factorize methods share: which layers and ranks, and where the factors go.

A layer is replaced by a sequence of thinner ones. With ``rank: auto`` a candidate is kept when the target runs it
faster by ``min_gain`` (measured, geometric mean over the target's batch sizes), raises the validation loss alone by no
more than ``max_loss`` (``slimline.sensitivity``), and the validation metric stays within ``max_drop`` of the input
model's, all kept layers together and before recovery. At the end the whole model is measured
against the one that came in: if it isn't faster beyond the interval, every layer stays as it was.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Annotated, Any, ClassVar, Literal, cast

import numpy as np
import torch
from pydantic import ConfigDict, Discriminator, Field, Tag
from torch import Tensor, nn

from slimline import latency, masks, measure, metrics
from slimline.calibration import calibrate
from slimline.errors import MethodError
from slimline.layers import macs, sharing
from slimline.method import Alone, Batches, Context, Edit, Method, Plan
from slimline.observers import MinMax
from slimline.quantizers import (
    QuantizedConv2d,
    QuantizedLinear,
    Quantizer,
    plain,
    plain_layer,
    quantize_layer,
    quantizers,
    replace,
)
from slimline.refitting import refit
from slimline.sensitivity import Sensitivity
from slimline.task import call
from slimline.whitening import Covariances

Ranks = list[int]
Layers = dict[str, dict[str, Any]]  # by name: ranks, None where a layer stays, and why
Structure = Callable[[nn.Module, Ranks], nn.Sequential]
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Ratio:
    """Every rank is this share of the full one, rounded to ``multiple``, and at least that."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    ratio: Annotated[float, Field(gt=0, lt=1)]


@dataclass(frozen=True)
class Energy:
    """Every rank is the smallest whose squared singular values sum to this share of all."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    energy: Annotated[float, Field(gt=0, lt=1)]


def _kind_of_rank(rank: Any) -> str | None:
    """Return the tag of what ``rank`` is meant as, None where that is unclear."""
    if isinstance(rank, Mapping):
        return None if {"ratio", "energy"} <= rank.keys() else "[energy]" if "energy" in rank else "[ratio]"
    return {"auto": "[auto]", Ratio: "[ratio]", Energy: "[energy]"}.get(rank if isinstance(rank, str) else type(rank))


Rank = Annotated[
    Annotated[Literal["auto"], Tag("[auto]")] | Annotated[Ratio, Tag("[ratio]")] | Annotated[Energy, Tag("[energy]")],
    Discriminator(
        _kind_of_rank,
        custom_error_type="rank",
        custom_error_message="Input should be auto, or one of {ratio: r} and {energy: e}",
    ),
]


@dataclass(frozen=True)
class LowRank(Method):
    """The keys that all factorize methods share.

    ``rank`` is ``auto`` (measured: ``ratios`` are tried; ``min_gain``, ``max_loss`` and ``max_drop`` decide),
    ``{ratio: r}`` or ``{energy: e}``. ``whiten: false`` factorizes the bare weights; ``refit`` solves for the last
    factors once more, on what they read behind the other factorized layers (``slimline.refitting``). ``skip`` are globs
    of layers.
    """

    rank: Rank = "auto"
    ratios: Annotated[list[Annotated[float, Field(gt=0, lt=1)]], Field(min_length=1)] = field(
        default_factory=lambda: [0.125, 0.25, 0.5]
    )
    multiple: Annotated[int, Field(ge=1)] = 8
    min_gain: Annotated[float, Field(ge=1)] = 1.1
    max_drop: Annotated[float, Field(ge=0, le=1)] = 0.01
    max_loss: Annotated[float, Field(ge=0)] | None = None
    whiten: bool = True
    refit: bool = True
    skip: list[str] = field(default_factory=list)

    name: ClassVar[str]
    kinds: ClassVar[str] = "of a kind that it takes"  # after "stays: not"

    def plan(self, model: nn.Module, batches: Batches, context: Context) -> Plan:
        return plan(self, model, batches, context)

    def check(self, where: str) -> None:
        if self.max_loss is not None and self.rank != "auto":
            raise MethodError(f"{where}.max_loss: it guards ranks that are chosen, and rank isn't auto; leave it out")

    def check_model(self, model: nn.Module, batches: Batches, context: Context) -> None:
        del batches
        _names(self, model, context.where)

    def alone(self, model: nn.Module, batches: Batches, context: Context) -> dict[str, Alone]:
        if self.rank == "auto":
            return {}
        covariance = _covariance(self, model, batches, context)
        inputs, _ = next(iter(batches()))
        asked = _as_asked(self, model, covariance, measure.input_shapes(model, list(covariance), inputs))["layers"]
        return {
            name: alone(self, model, name, entry["ranks"], covariance, batches)
            for name, entry in asked.items()
            if entry["ranks"]
        }

    @staticmethod
    def takes(layer: nn.Module) -> bool:
        """Return whether the method factorizes this kind of layer."""
        raise NotImplementedError

    @staticmethod
    def spectra(layer: nn.Module, covariance: Tensor) -> list[Tensor]:
        """Return the singular values (descending) of the whitened weight, one tensor for each rank to choose."""
        raise NotImplementedError

    @staticmethod
    def structure(layer: nn.Module, ranks: Ranks) -> nn.Sequential:
        """Return the sequence of thinner layers, weights unset; the last one carries the bias."""
        raise NotImplementedError

    @staticmethod
    def weights(layer: nn.Module, ranks: Ranks, covariance: Tensor) -> list[Tensor]:
        """Return the weights of the sequence; ``covariance`` is E[x xᵀ] of the layer's input channels."""
        raise NotImplementedError


def is_dense_kernel(layer: nn.Module) -> bool:
    """Return whether a layer is a k×k convolution of all channels that pads, if at all, with zeros."""
    return (
        isinstance(layer, nn.Conv2d)
        and layer.kernel_size != (1, 1)
        and layer.groups == 1
        and layer.padding_mode == "zeros"
    )


def plan(method: LowRank, model: nn.Module, batches: Batches, context: Context) -> Plan:
    """Choose layers and ranks (or replay the recorded choice) and compute their factors."""
    method.check(context.where)
    covariance = _covariance(method, model, batches, context)

    def factorized(ranks: Mapping[str, Ranks]) -> tuple[nn.Module, Edit]:
        return _factorized(method, model, ranks, covariance, batches)

    def guard(name: str, ranks: Ranks) -> float | None:
        if method.max_loss is None:
            return None
        return study.cost(method, name, alone(method, model, name, ranks, covariance, batches)).rise

    study = Sensitivity(model, context)

    def decide() -> dict[str, Any]:
        inputs, _ = next(iter(batches()))
        shapes = measure.input_shapes(model, list(covariance), inputs)
        if not shapes:
            found: dict[str, Any] = {"layers": {}, "summary": f"no layer for {method.name}: the model stays as it is"}
        elif method.rank == "auto":
            found = _choose(method, model, context, shapes, covariance, factorized, guard)
        else:
            found = _as_asked(method, model, covariance, shapes)
        return {**found, "layers": _every(method, model, found["layers"])}

    choice = context.decisions.choose(method.name, decide)
    notes = [f"{name}: {entry['why']}" for name, entry in choice["layers"].items()] + [choice["summary"]]
    ranks = {name: entry["ranks"] for name, entry in choice["layers"].items() if entry["ranks"]}
    lost = [name for name in ranks if masks.mask_of(model.get_submodule(name)) is not None]
    notes += [f"{name}: its mask is dropped, the factors are dense" for name in lost]
    changed, edit = factorized(ranks)
    before, after = model.state_dict(), changed.state_dict()
    tensors = {
        name: tensor for name, tensor in after.items() if name not in before or before[name].shape != tensor.shape
    }
    return Plan(edit, tensors, notes)


def alone(
    method: LowRank, model: nn.Module, name: str, ranks: Ranks, covariance: Mapping[str, Tensor], batches: Batches
) -> Alone:
    """Return the change that factorizes one layer at ``ranks``."""

    def make() -> nn.Module:
        return _factorized(method, model, {name: ranks}, covariance, batches)[0]

    return Alone({"ranks": list(ranks), "whiten": method.whiten, "refit": method.refit}, make, (name,))


def _covariance(method: LowRank, model: nn.Module, batches: Batches, context: Context) -> Mapping[str, Tensor]:
    """Return what each layer is whitened by: the covariance of its inputs, or the identity."""
    return Covariances(model, _names(method, model, context.where), batches, whiten=method.whiten, where=context.where)


def _factorized(
    method: LowRank, model: nn.Module, ranks: Mapping[str, Ranks], covariance: Mapping[str, Tensor], batches: Batches
) -> tuple[nn.Module, Edit]:
    """Return a copy of ``model`` with these layers at these ranks, and the edit that says so."""
    edit = Edit(method.name, {"ranks": {name: list(value) for name, value in ranks.items()}})
    changed = apply(sharing(model), edit, method.structure)
    for name, value in ranks.items():
        original = model.get_submodule(name)
        parts = changed.get_submodule(name)
        for part, weight in zip(parts.children(), method.weights(original, value, covariance[name]), strict=True):
            part.weight.data.copy_(weight)  # type: ignore[operator]
        if isinstance(original.bias, Tensor):
            list(parts.children())[-1].bias.data.copy_(original.bias.data)  # type: ignore[operator]
    _calibrate(changed, model, list(ranks), batches)
    if method.refit:
        refit(changed, model, list(ranks), batches)
        _calibrate(changed, model, list(ranks), batches)
    return changed, edit


def _names(method: LowRank, model: nn.Module, where: str) -> list[str]:
    """Return the layers that the method takes and ``skip`` doesn't name."""
    names = [name for name, layer in model.named_modules() if method.takes(layer)]
    for pattern in method.skip:
        if not any(fnmatchcase(name, pattern) for name in names):
            known = ", ".join(names) or "none"
            raise MethodError(f"{where}.skip: {pattern!r} matches no layer that can be factorized; layers: {known}")
    return [name for name in names if not any(fnmatchcase(name, pattern) for pattern in method.skip)]


def _every(method: LowRank, model: nn.Module, considered: Layers) -> Layers:
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


def _as_asked(
    method: LowRank, model: nn.Module, covariance: Mapping[str, Tensor], shapes: Mapping[str, Sequence[int]]
) -> dict[str, Any]:
    """Give every layer the rank that ``ratio`` or ``energy`` asks for, unless it would cost more work than it saves."""
    layers: Layers = {}
    for name, shape in shapes.items():
        layer = model.get_submodule(name)
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


def rank_of_energy(spectrum: Tensor, energy: float) -> int:
    """Return the smallest rank whose squared singular values (descending) sum to ``energy`` of all."""
    shares = spectrum.square().cumsum(0) / spectrum.square().sum().clamp(min=torch.finfo(spectrum.dtype).tiny)
    return min(int((shares < energy).sum()) + 1, len(spectrum))


def cost(module: nn.Module, shape: Sequence[int]) -> int:
    """Return the multiply-adds of a layer or a sequence on one input of ``shape`` (without the batch)."""
    bare = plain(module) if isinstance(module, nn.Sequential) else copy.deepcopy(plain_layer(module))
    bare = bare if isinstance(bare, nn.Sequential) else nn.Sequential(bare)
    return sum(macs(bare, lambda: bare(torch.zeros(1, *shape))).values())


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


def candidate_ranks(sizes: Sequence[int], ratios: Sequence[float], multiple: int) -> list[Ranks]:
    """Return one rank a size for each ratio, rounded to ``multiple`` and below the size, without repeats."""
    found: list[Ranks] = []
    for ratio in sorted(ratios):
        ranks = [max(multiple, round_to(size * ratio, multiple)) for size in sizes]
        if all(rank < size for rank, size in zip(ranks, sizes, strict=True)) and ranks not in found:
            found.append(ranks)
    return found


def round_to(value: float, multiple: int) -> int:
    """Return the multiple nearest to ``value``."""
    return round(value / multiple) * multiple


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


def _choose(
    method: LowRank,
    model: nn.Module,
    context: Context,
    shapes: Mapping[str, Sequence[int]],
    covariance: Mapping[str, Tensor],
    factorized: Callable[[Mapping[str, Ranks]], tuple[nn.Module, Edit]],
    guard: Callable[[str, Ranks], float | None],
) -> dict[str, Any]:
    """Measure every layer at every candidate rank and keep what pays, the largest saving first.

    ``guard`` returns by how much a layer at some ranks raises the validation loss alone, None where that isn't asked.
    """
    task = context.task
    sign = 1 if task.higher_is_better else -1
    start = metrics.evaluate(model, task, context.validation)[task.primary]
    min_gain, max_drop = method.min_gain, method.max_drop
    layers: Layers = {}
    paying: list[tuple[float, str, Ranks, float]] = []
    for name, shape in shapes.items():
        layer = model.get_submodule(name)
        sizes = [len(spectrum) for spectrum in method.spectra(layer, covariance[name])]
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
    layers: Layers,
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
