"""What layers cost on the target at any width, from times measured at some.

Multiply-adds mislead: int8 kernels work in blocks of channels, and a layer of 8 may run slower than one of 16. So each
layer is timed alone on a grid of widths (``multiple`` and its doublings), and times in between are interpolated
linearly on both sides. Only differences of times are used, since a call's overhead cancels there.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from slimline import latency, measure, plugins, progress
from slimline.errors import MethodError
from slimline.method import Batches, Context, Method, compress
from slimline.params import Target
from slimline.pruning.channels import Cost, Group, is_depthwise, keep_channels, slice_layer, slice_model
from slimline.pruning.widths import Limits, cheapest
from slimline.quantization.quantizers import is_quantized

TRIES = 4  # of reaching the ratio in the whole model
MOST, STEP = 0.98, 0.01
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Table:
    """Cost of one layer at ``outs`` × ``ins`` (ascending sizes of its two sides); a depthwise layer has one ``ins``."""

    outs: list[int]
    ins: list[int]
    costs: NDArray[np.float64]

    def at(self, out: float, into: float) -> float:
        """Return the cost at a width, linear between the measured ones."""
        by_out = [np.interp(into, self.ins, row) for row in self.costs]
        return float(np.interp(out, self.outs, by_out))


class TimedCost(Cost):
    """Cost as a share of the whole model's measured time: 1, less what the narrower layers save."""

    def __init__(self, found: list[Group], model: nn.Module, tables: Mapping[str, Table]) -> None:
        super().__init__(found, model, {name: float(table.costs[-1, -1]) for name, table in tables.items()})
        self._tables = tables

    def layer(self, name: str, widths: list[int]) -> float:
        left, table = self.left(name, widths), self._tables[name]
        return table.at(left.get(0, 1.0) * table.outs[-1], left.get(1, 1.0) * table.ins[-1])

    def total(self, widths: list[int]) -> float:
        return 1.0 + super().total(widths) - sum(self._full.values())


def tables(
    found: list[Group],
    model: nn.Module,
    inputs: dict[str, Tensor],
    whole: Mapping[int, float],
    limits: Limits,
    target: Target,
) -> dict[str, Table]:
    """Time every layer of ``model`` that a group narrows. Costs are shares of ``whole`` {batch size: seconds}.

    Layers that are alike share one measurement.
    """
    sides = _grids(found, model, limits)
    shapes = measure.input_shapes(model, list(sides), inputs)
    done: dict[str, Table] = {}
    made: dict[str, Table] = {}
    for name, (outs, ins) in progress.each(sides.items(), "layer times", len(sides), "layer"):
        if name not in shapes:
            continue
        layer = model.get_submodule(name)
        key = f"{layer} {shapes[name]} {outs} {ins}"
        if key not in made:
            made[key] = _time(layer, shapes[name], outs, ins, whole, target)
        done[name] = made[key]
    return done


def choose(
    method: str,
    found: list[Group],
    scores: list[Tensor],
    model: nn.Module,
    batches: Batches,
    context: Context,
    ratio: float,
    limits: Limits,
    *,
    int8: bool,
    float_layers: Sequence[str] = (),
) -> tuple[list[int], list[str]]:
    """Return the widths at which ``ratio`` of the model's time on the target is gone, and notes on what was measured.

    The tables guide, the whole model decides: while it is slower than asked, more goes. The choice is recorded.
    """

    def decide() -> dict[str, Any]:
        timed = as_int8(model, batches, context, float_layers) if int8 and not is_quantized(model) else model
        inputs, _ = next(iter(batches()))
        rows, signature = context.calibration, context.task.signature()
        alone = measure.models({"before": timed}, signature, rows, context.target)["before"]
        whole = {batch: samples.p50 for batch, samples in alone.items()}
        cost = TimedCost(found, timed, tables(found, timed, inputs, whole, limits, context.target))
        goal, tries = ratio, 0
        widths: list[int] = []
        while True:
            narrower = cheapest(found, scores, cost, goal, limits, leap=True)
            if narrower != widths:
                widths, tries = narrower, tries + 1
                after = slice_model(copy.deepcopy(timed), _only_layers(keep_channels(found, scores, widths), timed))
                samples = measure.models({"before": timed, "after": after}, signature, rows, context.target)
                gone = float(np.mean([1 - samples["after"][b].p50 / samples["before"][b].p50 for b in whole]))
            if gone >= ratio or goal >= MOST or tries == TRIES:
                break
            goal = min(MOST, goal + max(ratio - gone, STEP))
        shown = ", ".join(f"batch {b}: {_speedup(samples, b)}" for b in whole)
        summary = f"{gone:.0%} of the time is gone where {ratio:.0%} was asked, measured on the whole model ({shown})"
        kept = zip(found, widths, strict=True)
        layers = {g.members[0][0]: {"width": width, "why": f"{width} of {g.channels} channels"} for g, width in kept}
        return {"layers": layers, "summary": summary}

    choice = context.decisions.choose(method, decide)
    widths = [choice["layers"].get(group.members[0][0], {}).get("width", group.channels) for group in found]
    return widths, [choice["summary"]]


def as_int8(model: nn.Module, batches: Batches, context: Context, float_layers: Sequence[str] = ()) -> nn.Module:
    """Return a copy of ``model`` quantized as ``linear`` does, but for the layers that the globs ``float_layers`` name.

    Its speed is what counts here, not its answers.
    """
    check_float_layers(model, batches, context, float_layers)
    quantized, _ = compress(_linear(float_layers), model, batches, context)
    return quantized.eval()


def check_float_layers(model: nn.Module, batches: Batches, context: Context, float_layers: Sequence[str]) -> None:
    """Raise MethodError at a glob that matches no layer."""
    try:
        _linear(float_layers).check_model(model, batches, context)
    except MethodError as error:
        raise MethodError(str(error).replace(f"{context.where}.skip:", f"{context.where}.float_layers:")) from error


def _linear(skip: Sequence[str]) -> Method:
    method: Method = plugins.find("methods", "linear")(skip=list(skip))
    return method


def _only_layers(kept: dict[str, dict[str, list[int]]], model: nn.Module) -> dict[str, dict[str, list[int]]]:
    """Leave out the norms that quantizing has folded away."""
    return {name: sides for name, sides in kept.items() if not isinstance(model.get_submodule(name), nn.Identity)}


def _speedup(samples: Mapping[str, Mapping[int, latency.Samples]], batch: int) -> str:
    ratio, (low, high) = latency.speedup(samples["before"][batch], samples["after"][batch], CONFIDENCE)
    return f"{ratio:.2f}× [{low:.2f}, {high:.2f}]"


def _grids(found: list[Group], model: nn.Module, limits: Limits) -> dict[str, tuple[list[int], list[int]]]:
    """Return the sizes (outs, ins) at which each layer that a group narrows is timed."""
    narrowed: dict[str, dict[int, set[int]]] = {}
    for group in found:
        widths = {limits.least(group.channels), group.channels}
        widths |= {limits.multiple * 2**k for k in range(group.channels.bit_length())}
        allowed = [width for width in widths if limits.least(group.channels) <= width <= group.channels]
        for name, side, owned in group.members:
            layer = model.get_submodule(name)
            if not isinstance(layer, nn.Conv2d | nn.Linear):
                continue
            axis = 0 if side == "out" or is_depthwise(layer) else 1
            size, mine = layer.weight.shape[axis], sum(map(len, owned))
            sizes = {size - round(mine * (1 - width / group.channels)) for width in allowed}
            narrowed.setdefault(name, {}).setdefault(axis, set()).update(sizes)
    grids = {}
    for name, by_axis in narrowed.items():
        weight = model.get_submodule(name).get_parameter("weight")
        grids[name] = tuple(sorted(by_axis.get(axis, {weight.shape[axis]})) for axis in (0, 1))
    return grids  # type: ignore[return-value]


def _time(
    layer: nn.Module,
    shape: tuple[int, ...],
    outs: list[int],
    ins: list[int],
    whole: Mapping[int, float],
    target: Target,
) -> Table:
    variants, shapes = {}, {}
    for out in outs:
        for into in ins:
            name = f"{out}x{into}"
            variants[name] = resized(layer, out, into)
            read = out if is_depthwise(layer) else into
            shapes[name] = (read, *shape[1:]) if isinstance(layer, nn.Conv2d) else (*shape[:-1], read)
    seconds = measure.layers(variants, shapes, target)
    costs = [
        [np.mean([seconds[f"{out}x{into}"][batch] / whole[batch] for batch in whole]) for into in ins] for out in outs
    ]
    return Table(outs, ins, np.array(costs, np.float64))


def resized(layer: nn.Module, out: int, into: int) -> nn.Module:
    """Return a copy of a convolution or linear layer with its first ``out`` outputs and ``into`` inputs."""
    narrow = copy.deepcopy(layer)
    slice_layer(narrow, list(range(out)), None if is_depthwise(layer) else list(range(into)))
    return narrow
