"""Mixed precision: each layer's weights get the width that the model can bear, within a budget.

For each layer l and width b two things are measured: Ω_l(b), the divergence of the model's answers on validation rows
when that layer alone is quantized (``slimline.sensitivity``), and what the layer takes, s_l(b). Then

    min Σ_l Ω_l(b_l)   subject to   Σ_l s_l(b_l) ≤ budget           (``slimline.knapsack``, exact)

as HAWQ-V2 and V3 do with a Hessian in place of a measured Ω (Dong et al. 2020, arXiv:1911.03852; Yao et al. 2021,
arXiv:2011.10680). The budget is one of

    bytes       of the model file. s_l = packed weights and scales; the file is written and its real size decides
    latency     as a share of the input model's time on the target. s_l = how the time of the whole model changes when
                that layer alone takes another width; what is chosen is measured as a whole, and that decides
    max_loss    how far the validation loss may rise. The smallest choice on the front of bytes and divergence whose
                loss, measured with all layers at their widths, is within it

``skip: auto`` is the choice between one width and floating point: a layer stays as it is when its loss alone rises by
more than ``max_loss``, or when the whole model runs faster without that layer's quantizers. Nothing is trained for any
of this, so recovery starts at what was measured here. Choices are recorded in ``decisions/STAGE.json``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import ConfigDict, Field
from torch import nn

from slimline import knapsack, latency, measure
from slimline.errors import MethodError
from slimline.grids import Spec, container, scale_shape, spec_data
from slimline.knapsack import Point
from slimline.method import Alone, Batches, Context, Method, compress
from slimline.quantizers import (
    QuantizedConv2d,
    QuantizedLinear,
    has_integer_kernel,
    is_quantizable,
    is_quantized,
    plain_layer,
    quantize_layer,
)
from slimline.sensitivity import Cost, Sensitivity

if TYPE_CHECKING:
    from slimline.quantization import Quantize

FLOAT = 32
CONFIDENCE = 0.95
TRIES = 6  # whole models written or timed on the way to a budget
CHOOSING = {"skip", "layers", "choices", "budget", "max_loss", "bits", "weight_bits", "activation_bits"}
REFINING = {"rounding", "rounding_steps", "learned_steps"}  # what comes after a width is chosen


@dataclass(frozen=True)
class Budget:
    """One of three: ``bytes`` of the model file, ``latency`` as a share of the input model's, or ``max_loss``."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    bytes: Annotated[int, Field(ge=1)] | None = None
    latency: Annotated[float, Field(gt=0, lt=1)] | None = None
    max_loss: Annotated[float, Field(ge=0)] | None = None


def check(method: Quantize, where: str) -> None:
    """Raise MethodError where keys of a quantize method contradict each other."""
    given = [key for key, value in asdict(method.budget).items() if value is not None] if method.budget else []
    kinds = ", ".join(field.name for field in fields(Budget))
    if method.bits != "auto":
        if method.budget is not None:
            raise MethodError(f"{where}.budget: it is read with bits: auto alone, and bits is {method.bits}")
        return
    if len(given) != 1:
        found = " and ".join(given) or "nothing"
        raise MethodError(f"{where}.budget: bits: auto keeps to one of {kinds}; found {found}")
    if method.weight_bits is not None:
        raise MethodError(f"{where}.weight_bits: bits: auto chooses them from choices; leave it out")
    if method.skip == "auto":
        raise MethodError(f"{where}.skip: bits: auto chooses that too: add 32 to choices, the width of a float layer")
    if len(set(method.choices)) < 2:
        raise MethodError(f"{where}.choices: {method.choices} leaves nothing to choose; give two widths or more")


def alone(method: Quantize, model: nn.Module, batches: Batches, context: Context) -> dict[str, Alone]:
    """Return, for each Conv2d and Linear that ``method`` quantizes, how it quantizes that one alone."""
    bare = {name: plain_layer(module) for name, module in model.named_modules() if name}
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


def resolve(method: Quantize, model: nn.Module, batches: Batches, context: Context) -> tuple[Quantize, list[str]]:
    """Return ``method`` with what was measured (or recorded) in place of ``auto``, and a note for each layer."""
    trial = _Trial(method, model, batches, context)
    choice = context.decisions.choose(method.name, trial.widths if method.bits == "auto" else trial.skipped)
    layers = {name: choice["layers"][name] for name, _ in model.named_modules() if name in choice["layers"]}
    notes = [f"{name}: {entry['why']}" for name, entry in layers.items()] + [choice["summary"]]
    widths = {name: entry["bits"] for name, entry in layers.items()}
    floats = {name: bits for name, bits in widths.items() if bits == FLOAT}
    return method.at_widths(widths if method.bits == "auto" else floats), notes


@dataclass(frozen=True)
class _Trial:
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

    # --- bits: auto ---------------------------------------------------------------------------------------------------

    def widths(self) -> dict[str, Any]:
        """Choose a width for each layer, within the budget."""
        method, where = self.method, self.context.where
        choices = sorted(set(method.choices))
        if FLOAT in choices and is_quantized(self.model):
            raise MethodError(f"{where}.choices: 32: the model carries quantizers, and this method takes none off")
        names = [name for name in self._layers() if not _pinned(method, name)]
        if not names:
            raise MethodError(f"{where}.bits: auto: no layer is left to choose a width for; layers gives all their own")
        study = Sensitivity(self.model, self.context)
        costs = self._costs(study, names, choices)
        losses = [[costs[name, bits].divergence if bits != FLOAT else 0.0 for bits in choices] for name in names]
        assert method.budget is not None  # noqa: S101  (checked)
        if method.budget.latency is not None:
            sizes, unit = self._times(names, choices), "of the time"
        else:
            sizes, unit = [[self._bytes(name, bits) for bits in choices] for name in names], "bytes"
        front = knapsack.frontier(sizes, losses)

        def widths_of(point: Point) -> dict[str, int]:
            return {name: choices[option] for name, option in zip(names, point.options, strict=True)}

        if method.budget.bytes is not None:
            point, summary = self._within_bytes(front, widths_of, method.budget.bytes)
        elif method.budget.latency is not None:
            point, summary = self._within_latency(front, widths_of, method.budget.latency)
        else:
            point, summary = self._within_loss(front, widths_of, method.budget.max_loss or 0.0, study)
        layers = {}
        for name, option, size, loss in zip(names, point.options, sizes, losses, strict=True):
            layers[name] = {"bits": choices[option], "why": _why(choices, option, size, loss, unit)}
        return {"layers": layers, "summary": summary}

    def _within_bytes(
        self, front: list[Point], widths_of: Callable[[Point], dict[str, int]], budget: int
    ) -> tuple[Point, str]:
        """Return the point of least divergence whose file, as written, is no larger than ``budget``."""
        signature = self.context.task.signature()
        written: dict[int, int] = {}
        index = found = 0
        while index < len(front) and index not in written and len(written) < TRIES:
            written[index] = measure.file_bytes(self.quantized(widths_of(front[index])), signature)
            beside = written[index] - front[index].size  # graph, biases and all else that has one size
            found = max((at for at, size in written.items() if size <= budget), default=0)
            index = max((at for at, point in enumerate(front) if point.size + beside <= budget), default=0)
            if index in written:
                index = found + 1  # sizes beside the weights differ by some bytes between widths
        if written[0] > budget:
            raise MethodError(
                f"{self.context.where}.budget.bytes: {budget:,} can't be reached with these choices: the smallest file "
                f"is {written[0]:,} bytes; raise it, or give choices a narrower width"
            )
        return front[found], f"the file has {written[found]:,} of {budget:,} bytes; {_sum_of(front[found])}"

    def _within_latency(
        self, front: list[Point], widths_of: Callable[[Point], dict[str, int]], budget: float
    ) -> tuple[Point, str]:
        """Return the point of least divergence at which the whole model takes no more than ``budget`` of its time."""
        shares: dict[int, float] = {}

        def is_within(index: int) -> bool:
            shares[index] = self._share_of_time(self.quantized(widths_of(front[index])))
            return shares[index] <= budget

        found = _turn(len(front), is_within, TRIES)
        if found is None:
            raise MethodError(
                f"{self.context.where}.budget.latency: {budget:g} can't be reached with these choices: the fastest "
                f"takes {shares[0]:.2f} of the input model's time, measured; raise it, or give choices a faster width"
            )
        summary = (
            f"{shares[found]:.2f} of the input model's time where {budget:g} was asked, measured on the whole model"
        )
        return front[found], f"{summary}; {_sum_of(front[found])}"

    def _within_loss(
        self, front: list[Point], widths_of: Callable[[Point], dict[str, int]], budget: float, study: Sensitivity
    ) -> tuple[Point, str]:
        """Return the smallest point at which the whole model's validation loss rises by no more than ``budget``."""
        rises: dict[int, float] = {}
        last = len(front) - 1

        def is_within(index: int) -> bool:
            at = last - index
            rises[at] = study.rise(self.quantized(widths_of(front[at]), refined=True))
            return rises[at] <= budget

        found = _turn(len(front), is_within, math.ceil(math.log2(len(front) + 1)) + 1)
        if found is None:
            raise MethodError(
                f"{self.context.where}.budget.max_loss: {budget:g} can't be reached with these choices: at the widest "
                f"the validation loss rises by {rises[last]:.4f}; raise it, or give choices a wider width"
            )
        at = last - found
        summary = f"the validation loss rises by {rises[at]:.4f} where {budget:g} was allowed, all layers together"
        return front[at], f"{summary}; {_sum_of(front[at])}"

    # --- skip: auto ---------------------------------------------------------------------------------------------------

    def skipped(self) -> dict[str, Any]:
        """Choose which layers stay in floating point at the method's own widths."""
        method, context = self.method, self.context
        if is_quantized(self.model):
            raise MethodError(
                f"{context.where}.skip: auto: the model carries quantizers, and this method takes none off"
            )
        names = self._layers()
        changes = alone(method, self.model, self.batches, context)
        study = Sensitivity(self.model, context)
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
        for name, gain in self._slower(names, fragile).items():
            layers[name] = {
                "bits": FLOAT,
                "why": f"stays in floating point: without its quantizers the whole model runs {gain:.2f}× as fast",
            }
        floats = sum(entry["bits"] == FLOAT for entry in layers.values())
        return {"layers": layers, "summary": f"{floats} of {len(names)} layers stay in floating point"}

    def _slower(self, names: Sequence[str], fragile: Sequence[str]) -> dict[str, float]:
        """Return the layers without whose quantizers the whole model is surely faster, and by which factor.

        A layer alone pays for rounding its input and unpacking its output, which its neighbours do in the whole model:
        whoever is faster even so is so for sure, only the others are tried there.
        """
        fast = [name for name in names if name not in fragile and self._integers(name)]
        gains = {name: 1 / share for name, share in self._alone_times(fast).items()}
        suspects = [name for name, gain in gains.items() if gain < 1]
        if not suspects or len(suspects) + len(fragile) == len(names):
            return {}
        floats = dict.fromkeys(fragile, FLOAT)
        variants = {"all": self.quantized(floats)}
        variants |= {name: self.quantized({**floats, name: FLOAT}) for name in suspects}
        samples = self._measured(variants)
        faster = {}
        for name in suspects:
            ratios = [
                latency.speedup(samples["all"][b], samples[name][b], CONFIDENCE)
                for b in self.context.target.batch_sizes
            ]
            if np.mean([np.log(low) for _, (low, _) in ratios]) > 0:
                faster[name] = float(np.exp(np.mean([np.log(ratio) for ratio, _ in ratios])))
        return faster

    # --- what is measured ---------------------------------------------------------------------------------------------

    def _layers(self) -> list[str]:
        return list(alone(self.method, self.model, self.batches, self.context))

    def _costs(self, study: Sensitivity, names: Sequence[str], choices: Sequence[int]) -> dict[tuple[str, int], Cost]:
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

    def _bytes(self, name: str, bits: int) -> float:
        """Return what a layer's weights take in the file, their scales and zero points included."""
        layer = plain_layer(self.model.get_submodule(name))
        weight = layer.get_parameter("weight")
        if bits == FLOAT:
            return 4.0 * weight.numel()
        _, spec, _ = self._at(name, bits)
        packed = container(spec.bits) / 8
        scales = math.prod(scale_shape(spec, weight.shape))
        return math.ceil(weight.numel() * packed) + scales * (4 + packed)

    def _integers(self, name: str, bits: int | None = None) -> nn.Module | None:
        """Return the layer as the runtime runs it in integers at a width, or None where it has no such kernel."""
        width = bits or self.method.at_widths({}).for_layer(name).weight_spec().bits
        if width == FLOAT:
            return None
        layer, weight, activation = self._at(name, width)
        quantized = quantize_layer(layer, weight, activation)
        runs = isinstance(quantized, QuantizedConv2d | QuantizedLinear) and has_integer_kernel(quantized)
        return quantized if runs else None

    def _alone_times(self, names: Sequence[str]) -> dict[str, float]:
        """Return each layer's time in integers over that in floating point, alone; layers alike share a measurement."""
        inputs, _ = next(iter(self.batches()))
        shapes = measure.input_shapes(self.model, list(names), inputs)
        known: dict[str, float] = {}
        found = {}
        for name in names:
            layer, integers = plain_layer(self.model.get_submodule(name)), self._integers(name, 8)
            key = f"{layer} {shapes[name]}"
            if key not in known and integers is not None:
                seconds = measure.layers({"float": layer, "int": integers}, shapes[name], self.context.target)
                known[key] = 1 / measure.gain(seconds["float"], seconds["int"])
            found[name] = known.get(key, 1.0)
        return found

    def _times(self, names: Sequence[str], choices: Sequence[int]) -> list[list[float]]:
        """Return each layer's time at each width, as a share of the whole input model's.

        A float layer between integer ones pays for unpacking and rounding at its edges, which no layer alone shows. So
        all layers are put at the widest width that runs in integers, and each is moved to each other width in turn.
        """
        base = self._base(names, choices)
        moved = {(name, bits): {**base, name: bits} for name in names for bits in choices if bits != base[name]}
        variants = {"input": self.model, "base": self.quantized(base)}
        variants |= {f"{name} {bits}": self.quantized(widths) for (name, bits), widths in moved.items()}
        samples = self._measured(variants)

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
        fast = {name: [bits for bits in choices if self._integers(name, bits) is not None] for name in names}
        return {name: max(fast[name] or choices) for name in names}

    def _share_of_time(self, changed: nn.Module) -> float:
        samples = self._measured({"before": self.model, "after": changed})
        return float(np.mean([samples["after"][b].p50 / samples["before"][b].p50 for b in samples["before"]]))

    def _measured(self, variants: Mapping[str, nn.Module]) -> dict[str, dict[int, latency.Samples]]:
        target = self.context.target
        rows, _ = self.context.calibration[slice(0, max(target.batch_sizes))]
        return measure.models(variants, self.context.task.signature(), rows, target)


def _pinned(method: Quantize, name: str) -> bool:
    """Return whether ``layers`` gives the layer's weights a width already."""
    return any(
        fnmatchcase(name, pattern) and (each.bits is not None or each.weight_bits is not None)
        for pattern, each in method.layers.items()
    )


def _turn(count: int, is_within: Callable[[int], bool], tries: int) -> int | None:
    """Return the last position of 0 … count − 1 found to be within, by bisection, or None when 0 isn't.

    ``is_within`` holds up to a turn and not behind it; where noise blurs that, what is returned was within.
    """
    if not is_within(0):
        return None
    low, high = 0, count
    for _ in range(tries):
        if high - low <= 1:
            break
        middle = (low + high) // 2 if high < count or low else count - 1  # the far end may do
        low, high = (middle, high) if is_within(middle) else (low, middle)
    return low


def _sum_of(point: Point) -> str:
    return f"the layers' divergences sum to {point.loss:.3g}"


def _why(choices: Sequence[int], option: int, sizes: Sequence[float], losses: Sequence[float], unit: str) -> str:
    """Return what a layer's width costs beside the others it could have had."""

    def told(at: int) -> str:
        if unit == "bytes":
            return f"divergence {losses[at]:.2g}, {sizes[at]:,.0f} bytes"
        return f"divergence {losses[at]:.2g}, {sizes[at] - min(sizes):+.3f} {unit} over its fastest"

    def width(at: int) -> str:
        return "floating point" if choices[at] == FLOAT else f"{choices[at]} bits"

    others = "; ".join(f"{width(at)}: {told(at)}" for at in range(len(choices)) if at != option)
    return f"{width(option)}: {told(option)} ({others})"
