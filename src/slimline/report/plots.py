"""The report's pictures."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from slimline.pipeline import ROOT
from slimline.report import labels, numbers, picture
from slimline.report.picture import COST, GAIN, INK, MUTED, SERIES, Draw, Picture
from slimline.report.study import Study

MARKERS = "osD^vPX"
DASHED = (0, (4, 3))
TICK_ROOM = 0.17  # of an axis, from one tick's label to the next
Show = Callable[[float], str]


def tradeoffs(study: Study) -> list[Picture]:
    """Draw the primary metric against latency at the smallest and largest batch, and against bytes."""
    pictures = []
    for index, (draw, title, positions, show) in enumerate(_tradeoffs(study)):
        points = [
            f"{stage} {study.primary.value(study.row(stage)[study.primary.name])} at {show(positions[stage][0])}"
            for stage in study.line
        ]
        alt = f"{study.primary.title} against {title}: {'; '.join(points)}"
        pictures.append(picture.svg(f"tradeoff-{index}", 3.2, alt, draw))
    return pictures


def tradeoff_png(study: Study) -> bytes:
    """Draw the same panels side by side as a PNG."""
    return picture.png(3.4, [draw for draw, *_ in _tradeoffs(study)])


Positions = Mapping[str, tuple[float, float, float]]


def _tradeoffs(study: Study) -> list[tuple[Draw, str, Positions, Show]]:
    """Return a drawing, its title, each stage's x with its interval, and how x is shown, for each panel."""
    panels: list[tuple[str, Positions, Show, float | None]] = []
    for batch in study.outer_batches:
        slowest = study.p50(ROOT, batch)
        bounds = {stage: study.row(stage)["speedup_ci"][batch] for stage in study.line}
        spans = {
            stage: (study.p50(stage, batch), slowest / bounds[stage][1], slowest / bounds[stage][0])
            for stage in study.line
        }
        panels.append((f"latency p50 at batch {batch}", spans, numbers.milliseconds, None))
    sizes = {stage: (float(study.row(stage)["bytes"]),) * 3 for stage in study.line}
    panels.append(("model file", sizes, partial(numbers.count, unit="B"), study.params.budget.max_bytes))
    return [
        (
            partial(_tradeoff, study=study, title=title, positions=positions, show=show, most=most),
            title,
            positions,
            show,
        )
        for title, positions, show, most in panels
    ]


def _tradeoff(ax: Axes, study: Study, title: str, positions: Positions, show: Show, most: float | None) -> None:
    metric = study.primary
    points = [(positions[stage][0], float(study.row(stage)[metric.name])) for stage in study.line]
    bounds = [
        study.quality_bounds(stage) if stage != ROOT else (y, y)
        for stage, (_, y) in zip(study.line, points, strict=True)
    ]
    if metric.score:  # an interval that follows from the teacher's value may reach beyond what there is
        bounds = [(max(low, 0.0), min(high, 1.0)) for low, high in bounds]
    ax.plot(*zip(*points, strict=True), color=MUTED, linewidth=1, zorder=2)
    for index, (stage, (x, y), (low, high)) in enumerate(zip(study.line, points, bounds, strict=True)):
        colour = SERIES[index % len(SERIES)]
        _, left, right = positions[stage]
        ax.plot([x, x], [low, high], color=colour, linewidth=1.4, alpha=0.65, zorder=3)
        ax.plot([left, right], [y, y], color=colour, linewidth=1.4, alpha=0.65, zorder=3)
        ax.plot(x, y, MARKERS[index % len(MARKERS)], color=colour, markersize=6.5, zorder=4)
    ax.set_title(f"{metric.title}{'' if metric.higher_is_better else ', lower is better,'} against {title}")
    ax.set_xlabel(f"{title}, log axis (left is better)")
    _log_axis(ax, [x for x, _ in points], show, before=0.35, after=0.3)
    span = max(high for _, high in bounds) - min(low for low, _ in bounds) or abs(points[0][1]) * 0.01 or 1.0
    ax.set_ylim(min(low for low, _ in bounds) - 0.22 * span, max(high for _, high in bounds) + 0.22 * span)
    if metric.score:
        ax.set_ylim(top=min(ax.get_ylim()[1], 1 + 0.05 * span))
    _value_axis(ax.yaxis, metric.tick)
    ax.grid(axis="y")
    limit = study.params.budget.max_drop.get(metric.name)
    if limit is not None:
        floor = points[0][1] - limit * (1 if metric.higher_is_better else -1)
        if ax.get_ylim()[0] < floor < ax.get_ylim()[1]:
            ax.axhline(floor, color=INK, linewidth=1, linestyle=DASHED, zorder=1)
    if most is not None and ax.get_xlim()[0] < most < ax.get_xlim()[1]:
        ax.axvline(most, color=INK, linewidth=1, linestyle=DASHED, zorder=1)
    labels.place(ax, points, study.line)


def waterfalls(study: Study) -> list[Picture]:
    """Draw what each stage changed against the one before: the primary metric, bytes, latency."""
    metric = study.primary
    quality = [float(study.row(stage)[metric.name]) for stage in study.line]
    moves = [metric.difference(step.quality, signed=True) for step in study.steps]
    pictures = [_waterfall_picture(study, "waterfall-quality", metric.title, quality, moves, metric.value)]
    measures: list[tuple[str, list[float], Show]] = [
        ("model file", [float(study.row(stage)["bytes"]) for stage in study.line], partial(numbers.count, unit="B"))
    ]
    for batch in study.outer_batches:
        values = [study.p50(stage, batch) for stage in study.line]
        measures.append((f"latency p50, batch {batch}", values, numbers.milliseconds))
    for index, (title, values, show) in enumerate(measures):
        moves = [_factor(before, after) for before, after in pairwise(values)]
        pictures.append(_waterfall_picture(study, f"waterfall-{index}", title, values, moves, show))
    return pictures


def _factor(before: float, after: float) -> str:
    """Return the change as a factor: ``÷4.20`` for less, ``×1.10`` for more."""
    return f"÷{numbers.significant(before / after)}" if after <= before else f"×{numbers.significant(after / before)}"


def _waterfall_picture(
    study: Study, name: str, title: str, values: list[float], moves: list[str], show: Show
) -> Picture:
    texts = [show(values[0]), *(f"{move} → {show(value)}" for move, value in zip(moves, values[1:], strict=True))]
    alt = f"{title} by stage: " + "; ".join(f"{stage} {text}" for stage, text in zip(study.line, texts, strict=True))
    quality = name == "waterfall-quality"
    higher = quality and study.primary.higher_is_better
    draw = partial(
        _waterfall,
        stages=study.line,
        title=title,
        values=values,
        texts=texts,
        show=study.primary.tick if quality else show,
        log=not quality,
        higher=higher,
    )
    return picture.svg(name, 0.95 + 0.28 * len(values), alt, draw)


def _waterfall(
    ax: Axes,
    stages: list[str],
    title: str,
    values: list[float],
    texts: list[str],
    show: Show,
    *,
    log: bool,
    higher: bool,
) -> None:
    ax.set_title(title)
    low, high = min(values), max(values)
    if log:
        _log_axis(ax, values, show, before=0.06, after=0.9)
    else:
        span = (high - low) or abs(high) * 0.01 or 1.0
        ax.set_xlim(low - 0.1 * span, high + 1.05 * span)
        _value_axis(ax.xaxis, show, most=4)
    ax.plot(values[0], 0, "o", color=SERIES[0], markersize=6)
    for row, (before, after) in enumerate(pairwise(values), start=1):
        better = after > before if higher else after < before
        ax.plot([before, before], [row - 1, row], color=MUTED, linewidth=0.8, zorder=1)
        ax.barh(row, after - before, left=before, height=0.55, color=GAIN if better else COST, zorder=3)
        ax.plot([after, after], [row - 0.275, row + 0.275], color=INK, linewidth=1.6, zorder=4)
    for row, text in enumerate(texts):
        end = max(values[max(row - 1, 0)], values[row])
        ax.annotate(text, (end, row), xytext=(7, 0), textcoords="offset points", va="center")
    ax.set_yticks(range(len(stages)), stages)
    ax.tick_params(axis="y", length=0, labelcolor=INK)
    ax.set_ylim(len(stages) - 0.5, -0.6)
    ax.grid(axis="x")


def curves(study: Study) -> list[Picture]:
    """Draw the loss and the validation metric of every stage that trained, by epoch."""
    pictures = []
    for key, title in (("loss", "training loss"), ("validation", f"validation {study.primary.title}")):
        lines = {stage: curve[key] for stage, curve in study.curves.items() if curve.get(key)}
        if lines:
            show = study.primary.value if key == "validation" else numbers.significant
            ends = [f"{stage} {show(line[0])} to {show(line[-1])} in {len(line)}" for stage, line in lines.items()]
            draw = partial(_curves, study=study, lines=lines, title=title, show=show)
            pictures.append(picture.svg(f"curves-{key}", 3.3, f"{title} by epoch: {'; '.join(ends)}", draw))
    return pictures


def _curves(ax: Axes, study: Study, lines: Mapping[str, list[float]], title: str, show: Show) -> None:
    for index, (stage, line) in enumerate(lines.items()):
        at = study.line.index(stage) if stage in study.line else len(study.line) + index
        colour, marker = SERIES[at % len(SERIES)], MARKERS[at % len(MARKERS)]
        ax.plot(range(1, len(line) + 1), line, color=colour, marker=marker, markersize=3.5, linewidth=1.3, label=stage)
    ax.set_xlabel("epoch")
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    _value_axis(ax.yaxis, show)
    ax.grid(axis="y")
    ax.set_title(title, pad=8 + 13 * math.ceil(len(lines) / 3))
    ax.legend(
        ncols=3, loc="lower left", bbox_to_anchor=(-0.02, 1.0), borderaxespad=0.2, columnspacing=1.4, handletextpad=0.5,
        borderpad=0, handlelength=1.6,
    )  # fmt: skip


def _value_axis(axis: Axis, show: Show, most: int = 6) -> None:
    axis.set_major_locator(MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: _short(show(value))))


def _short(number: str) -> str:
    """Return a formatted number without zeros at the end of its fraction."""
    return re.sub(r"(\.\d*?)0+(?!\d)", r"\1", number).replace(". ", " ").replace(".%", "%").rstrip(".")


def _log_axis(ax: Axes, values: Sequence[float], show: Show, before: float, after: float) -> None:
    """Make x a log axis around ``values`` with a few round ticks that don't touch, also within one decade.

    ``before`` and ``after`` are the free room at the ends, as parts of the values' spread.
    """
    smallest, largest = min(values), max(values)
    spread = max(largest / smallest, 1.5)
    low, high = smallest / spread**before, largest * spread**after
    ax.set_xscale("log")
    ax.set_xlim(low, high)
    end = min(high, largest * spread**0.3)
    if end / low < 8:
        rounds = [float(tick) for tick in MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(low, end)]
    else:
        steps = (1, 2, 5) if end / low < 50 else (1, 3) if end / low < 1000 else (1,)
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(end)) + 1)
        rounds = [step * 10.0**power for power in powers for step in steps]
    ticks: list[float] = []
    for tick in rounds:
        if low <= tick <= end and (not ticks or math.log(tick / ticks[-1]) > TICK_ROOM * math.log(high / low)):
            ticks.append(tick)
    ax.xaxis.set_major_locator(FixedLocator(ticks))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(show(value))))
