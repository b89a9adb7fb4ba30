"""Pictures of the values in each layer, one small panel each: weights and inputs, with the range of their quantizer.

The panels are written as SVG by hand: a page has hundreds, and a plotting library takes seconds and megabytes for them.
Their colours are the page's variables, so they follow light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from slimline.report import numbers
from slimline.report.lineage import Layer, Lineage, scheme, width
from slimline.report.study import Study

WIDTH, HEIGHT = 220, 92
TOP, BOTTOM, LEFT, RIGHT = 6, 76, 6, 214
MOST_PANELS = 40
ROOM = 1.0  # the axis goes so many spans of the values beyond them at most, for what lies farther out


@dataclass(frozen=True)
class Panel:
    """One layer's weights or inputs. ``notes`` stand under the picture."""

    title: str
    svg: str
    notes: list[str]


@dataclass(frozen=True)
class Gallery:
    """The panels of one stage. ``left_out`` counts the layers that there was no room for."""

    stage: str
    weights: list[Panel]
    inputs: list[Panel]
    left_out: int = 0


@dataclass(frozen=True)
class Bars:
    """A histogram: counts in bins of equal width from ``low`` on."""

    low: float
    step: float
    counts: Sequence[int]

    @property
    def high(self) -> float:
        return self.low + self.step * len(self.counts)

    def coarsened(self, times: int) -> Bars:
        """Return the same values in bins ``times`` (a power of two) as wide, still on the grid of powers of two."""
        if times == 1:
            return self
        first = round(self.low / self.step)
        start = first // times
        counts = [0] * ((first + len(self.counts) - 1) // times - start + 1)
        for index, count in enumerate(self.counts):
            counts[(first + index) // times - start] += count
        return Bars(start * self.step * times, self.step * times, counts)


def bars(histogram: Mapping[str, Any]) -> Bars:
    """Read a histogram of layers.json."""
    step = 2.0 ** histogram["exponent"]
    return Bars(histogram["first"] * step, step, histogram["counts"])


def galleries(study: Study) -> list[Gallery]:
    """Draw the layers of every stage after the teacher in which anything changed.

    Of more than ``MOST_PANELS`` layers those with the most multiply-adds are drawn.
    """
    found = []
    for stage in study.line[1:]:
        own = Lineage(study, stage)
        if own.layers and (own.before is None or study.layers.get(own.before.stage) != study.layers[stage]):
            largest = sorted(own.layers.values(), key=lambda layer: -layer["macs"])[:MOST_PANELS]
            chosen = [layer for layer in own.layers.values() if layer in largest]
            weights = [weight_panel(layer, own) for layer in chosen if "values" in layer]
            inputs = [panel for layer in chosen for panel in input_panels(layer, own)]
            found.append(Gallery(stage, weights, inputs, len(own.layers) - len(chosen)))
    return found


def weight_panel(layer: Layer, own: Lineage) -> Panel:
    """Draw a layer's weights as stored; outlined, those before this stage, or before rounding where that is new."""
    source = own.source(layer["name"])
    quantizer = layer.get("quantizer")
    newly = quantizer is not None and (source is None or source.get("quantizer") != quantizer)
    before = layer.get("float") if newly else None
    if before is None and source is not None and len(own.parts(source["name"])) == 1:
        before = source.get("values")
    zeros = f", {numbers.percent(layer['zeros'])} zero" if layer["zeros"] else ""
    notes = [f"{numbers.count(sum(layer['values']['counts']))} weights{zeros}"]
    if quantizer:
        notes.insert(0, f"{width(quantizer)} {scheme(quantizer)}, {_ends(quantizer)}")
    return _panel(layer["name"], "weights", layer["values"], before, quantizer, notes)


def input_panels(layer: Layer, own: Lineage) -> list[Panel]:
    """Draw each input of a layer as it comes, before any rounding; outlined, the same input in the stage before."""
    source = own.source(layer["name"])
    old: Sequence[Mapping[str, Any]] = source["inputs"] if source is not None else ()
    if source is not None and own.parts(source["name"])[0]["name"] != layer["name"]:
        old = ()  # a later factor reads what the factor before it makes
    panels = []
    for at, given in enumerate(layer["inputs"]):
        quantizer = given["quantizer"]
        before = old[at]["values"] if at < len(old) else None
        notes = []
        if quantizer:
            notes = [f"{width(quantizer)}, {_ends(quantizer)}", f"{numbers.percent(given['clipped'])} clipped"]
        title = layer["name"] + (f", input {at + 1}" if len(layer["inputs"]) > 1 else "")
        panels.append(_panel(title, "inputs", given["values"], before, quantizer, notes))
    return panels


def _ends(quantizer: Mapping[str, Any]) -> str:
    if quantizer["low"] == -quantizer["high"]:
        return f"±{numbers.significant(quantizer['high'])}"
    return f"{numbers.significant(quantizer['low'])} to {numbers.significant(quantizer['high'])}"


def _panel(
    title: str,
    what: str,
    values: Mapping[str, Any],
    before: Mapping[str, Any] | None,
    quantizer: Mapping[str, Any] | None,
    notes: list[str],
) -> Panel:
    now = bars(values)
    if not now.counts:
        return Panel(title, "", [f"no {what} seen"])
    old = bars(before) if before and before["counts"] else None
    if old is not None:
        step = max(now.step, old.step)
        old, now = old.coarsened(round(step / old.step)), now.coarsened(round(step / now.step))
    spoken = f"{what} of {title}: {numbers.significant(now.low)} to {numbers.significant(now.high)}"
    label = "; ".join([spoken, *notes])
    return Panel(title, _svg(label, now, old, (quantizer["low"], quantizer["high"]) if quantizer else None), notes)


def _svg(label: str, now: Bars, old: Bars | None, ends: tuple[float, float] | None) -> str:
    low, high = _limits(now, old, ends)
    most = max(*now.counts, *(old.counts if old else ()), 1)

    def x(value: float) -> float:
        return LEFT + (value - low) / (high - low) * (RIGHT - LEFT)

    def y(count: float) -> float:
        return BOTTOM - math.log10(1 + count) / math.log10(1 + most) * (BOTTOM - TOP)

    drawn = [f'<svg role="img" aria-label="{escape(label)}" viewBox="0 0 {WIDTH} {HEIGHT}">']
    decades = range(1, math.ceil(math.log10(most + 1)))
    drawn += [f'<path class="g" d="M{LEFT} {y(10**power):.1f}H{RIGHT}"/>' for power in decades]
    drawn.append(f'<path class="n" d="{_outline(now, low, high, x, y)}Z"/>')
    if old is not None:
        drawn.append(f'<path class="b" d="{_outline(old, low, high, x, y)}"/>')
    drawn.append(f'<path class="a" d="M{LEFT} {BOTTOM}H{RIGHT}"/>')
    for end, side in zip(ends or (), (-1, 1), strict=False):
        drawn.append(_mark(x(end), side))
    drawn += _ticks(low, high, x)
    return "".join(drawn) + "</svg>"


def _limits(now: Bars, old: Bars | None, ends: tuple[float, float] | None) -> tuple[float, float]:
    """Return the axis: all values of now, and what else is shown, unless that would squeeze them."""
    others = [*((old.low, old.high) if old else ()), *(ends or ())]
    room = ROOM * (now.high - now.low)
    low = max(min([now.low, *others]), now.low - room)
    high = min(max([now.high, *others]), now.high + room)
    margin = 0.02 * (high - low)
    return low - margin, high + margin


def _outline(shown: Bars, low: float, high: float, x: Any, y: Any) -> str:
    """Return a path along the tops of the bars from the axis back to it; bars beyond the axis' ends are left out."""
    inside = [
        (shown.low + index * shown.step, count)
        for index, count in enumerate(shown.counts)
        if low <= shown.low + index * shown.step and shown.low + (index + 1) * shown.step <= high
    ]
    if not inside:
        return f"M{LEFT} {BOTTOM}"
    steps = "".join(f"V{y(count):.1f}H{x(left + shown.step):.1f}" for left, count in inside)
    return f"M{x(inside[0][0]):.1f} {BOTTOM}{steps}V{BOTTOM}"


def _mark(at: float, side: int) -> str:
    """Return the mark of one end of a quantizer's range: a bracket that opens inwards, an arrow beyond the axis."""
    if LEFT <= at <= RIGHT:
        return f'<path class="r" d="M{at - 4 * side:.1f} {TOP}H{at:.1f}V{BOTTOM}H{at - 4 * side:.1f}"/>'
    edge = LEFT if side < 0 else RIGHT
    middle = (TOP + BOTTOM) / 2
    return f'<path class="r" d="M{edge - 6 * side} {middle - 5}L{edge} {middle}L{edge - 6 * side} {middle + 5}"/>'


def _ticks(low: float, high: float, x: Any) -> Iterable[str]:
    """Return the labels of two to four round values."""
    raw = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(each * power for each in (1, 2, 2.5, 5, 10) if each * power >= raw)
    for index in range(math.ceil(low / step), math.floor(high / step) + 1):
        at = x(index * step)
        anchor = "start" if at < LEFT + 12 else "end" if at > RIGHT - 12 else "middle"
        yield f'<path class="a" d="M{at:.1f} {BOTTOM}v3"/>'
        yield f'<text x="{at:.1f}" y="{HEIGHT - 4}" text-anchor="{anchor}">{_tick(index * step)}</text>'


def _tick(value: float) -> str:
    return numbers.sign(f"{value:.3g}") if value and 1e-3 <= abs(value) < 1e4 else f"{value:.0e}" if value else "0"
