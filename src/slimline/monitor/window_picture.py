"""Latency, quality, drift and traffic of a window on one time axis, with releases and alarms. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import cycle, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from slimline.deployment import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from slimline.report.picture import Picture

WIDTH = 12.5  # inches
HEIGHTS = {"releases": 0.25, "latency": 1.5, "accuracy": 1.9, "agreement": 1.5, "drift": 1.5, "traffic": 1.1}
ROW = 0.19  # inches, of a variant's bar or a release's name
ACROSS = 620  # points from the window's start to its end, about
ROOM = 1.05  # above the highest value
MARGIN = 0.005  # of the window's length, before its start
SHORTEST = 10.0  # seconds
TO_THE_SECOND = "%H:%M:%S"  # of a time where ticks stand between minutes
LETTER = 6.0  # points, about, of an alarm's number
DRIFT = "slimline_drift_score"
FEATURES = 5  # of drift, those that went furthest
GAP = 5.0  # times the usual step between two lines, beyond which a curve is broken
Line = Mapping[str, Any]
Own = tuple[str, str]


class Mark(NamedTuple):
    """An alarm as the picture shows it: when it was raised, and resolved if it was, Unix seconds."""

    time: float
    until: float | None
    number: int
    signal: str


def draw(lines: Sequence[Line], marks: Sequence[Mark], since: float, until: float) -> Picture:
    """Return the picture of a window of the history; a colour is a revision and variant."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.figure import Figure

    from slimline.report import picture

    until = max(until, since + SHORTEST)
    watched: dict[Own, list[Line]] = {}
    for line in lines:
        watched.setdefault((line["revision"], line["variant"]), []).append(line)
    colours = dict(zip(watched, cycle(picture.SERIES[1:]), strict=False))
    named = max(len(watched), len({variant for _, variant in watched}))
    heights = HEIGHTS | {"releases": HEIGHTS["releases"] + ROW * named}
    with rc_context(picture.STYLE | {"svg.hashsalt": "window"}):
        figure = Figure(figsize=(WIDTH, sum(heights.values()) + 1.2), dpi=72, layout="constrained", facecolor="none")
        FigureCanvasAgg(figure)
        axes = dict(
            zip(
                heights,
                figure.subplots(len(heights), 1, sharex=True, height_ratios=list(heights.values())),
                strict=True,
            )
        )
        _releases(axes["releases"], watched, colours)
        _latency(axes["latency"], watched, colours)
        for signal in ("accuracy", "agreement"):
            _quality(axes[signal], signal, watched, colours)
        _drift(axes["drift"], lines)
        _traffic(axes["traffic"], watched, colours)
        for name, ax in axes.items():
            if name != "releases":
                ax.grid(axis="y")
            for mark in marks:
                ax.axvline(_date(mark.time), color=picture.COST, linewidth=1.2, zorder=4)
                if mark.until is not None:
                    ax.axvspan(_date(mark.time), _date(mark.until), color=picture.COST, alpha=0.09, linewidth=0)
        for time, numbers in numbered(marks, since, until):
            axes["releases"].annotate(
                numbers, (_date(time), 1), (0, 2), xycoords=("data", "axes fraction"), textcoords="offset points",
                ha="left", va="bottom", color=picture.COST, fontsize=9, annotation_clip=False,
            )  # fmt: skip
        last = axes["traffic"]
        last.set_xlim(_date(since - MARGIN * (until - since)), _date(until))
        last.set_xlabel("UTC")
        locator = AutoDateLocator(tz=UTC)  # type: ignore[no-untyped-call]
        last.xaxis.set_major_locator(locator)
        formatter = ConciseDateFormatter(locator, tz=UTC)  # type: ignore[no-untyped-call]
        formatter.formats[-1] = formatter.zero_formats[-1] = TO_THE_SECOND
        formatter.offset_formats[-1] = formatter.offset_formats[-2]
        last.xaxis.set_major_formatter(formatter)
        alt = f"{len(watched)} releases, {len(marks)} alarms: {', '.join(mark.signal for mark in marks) or 'none'}"
        return picture.element(figure, "window", alt)


def _releases(ax: Axes, watched: Mapping[Own, Sequence[Line]], colours: Mapping[Own, str]) -> None:
    variants = list(dict.fromkeys(variant for _, variant in watched))
    for own, lines in watched.items():
        row = variants.index(own[1])
        for start, end in _stretches(lines):
            ax.plot([_date(start), _date(end)], [row, row], color=colours[own], linewidth=7, solid_capstyle="butt")
        ax.plot([], color=colours[own], linewidth=7, solid_capstyle="butt", label=f"{short(own[0])} as {own[1]}")
    _legend(ax)
    ax.set_yticks(range(len(variants)), variants)
    ax.set_ylim(len(variants) - 0.5, -0.5)
    ax.tick_params(length=0)
    ax.spines[["left", "bottom"]].set_visible(False)


def numbered(marks: Sequence[Mark], since: float, until: float) -> list[tuple[float, str]]:
    """Return where alarms' numbers stand, and what: of those whose numbers would cover each other, one for all."""
    found: list[tuple[float, int, int]] = []
    for mark in sorted(marks):
        time = min(max(mark.time, since), until)
        if found:
            start, first, last = found[-1]
            if (time - start) / (until - since) * ACROSS < LETTER * (len(_range(first, last)) + 1):
                found[-1] = (start, min(first, mark.number), max(last, mark.number))
                continue
        found.append((time, mark.number, mark.number))
    return [(time, _range(first, last)) for time, first, last in found]


def _range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}, {last}" if last == first + 1 else f"{first}\N{EN DASH}{last}"


def _latency(ax: Axes, watched: Mapping[Own, Sequence[Line]], colours: Mapping[Own, str]) -> None:
    ax.set_title("latency of the last 500 requests: p50, p95 (thin), p99 (dotted), ms")
    for own, lines in watched.items():
        for quantile, style, width in (("0.5", "-", 1.6), ("0.95", "-", 0.8), ("0.99", ":", 0.9)):
            times, values = _curve(lines, lambda line, q=quantile: _sample(line, "slimline_latency_seconds", q, 1e3))
            _plot(ax, times, values, linestyle=style, color=colours[own], linewidth=width)
    if ax.has_data():
        low, high = ax.dataLim.intervaly
        if high > 20 * max(low, 1e-3):
            ax.set_yscale("log")
        else:
            ax.set_ylim(0, ROOM * ax.get_ylim()[1])


def _quality(ax: Axes, signal: str, watched: Mapping[Own, Sequence[Line]], colours: Mapping[Own, str]) -> None:
    what = "accuracy (dotted: estimated without labels)" if signal == "accuracy" else "agreement with the teacher"
    ax.set_title(f"{what}, 95% interval, floor (dashed)")
    for own, lines in watched.items():
        colour = colours[own]
        times, values = _curve(lines, lambda line: _standing(line, signal, 1))
        _, low = _curve(lines, lambda line: _standing(line, signal, 2))
        _, high = _curve(lines, lambda line: _standing(line, signal, 3))
        _, floor = _curve(lines, lambda line: _standing(line, signal, 4))
        ax.fill_between(times, low, high, color=colour, alpha=0.16, linewidth=0)
        _plot(ax, times, values, color=colour, linewidth=1.6)
        _plot(ax, times, floor, color=colour, linewidth=1.0, linestyle=(0, (4, 3)))
        if signal == "accuracy":
            moments, estimate = _curve(lines, lambda line: _sample(line, "slimline_accuracy_estimate_ratio", "value"))
            _plot(ax, moments, estimate, linestyle=":", color=colour, linewidth=1.2)


def _drift(ax: Axes, lines: Sequence[Line]) -> None:
    from slimline.report.picture import SERIES

    ax.set_title(
        f"drift, total variation distance of the release that shows most; the {FEATURES} features furthest off"
    )
    moments = drifts(lines)
    names = {name for each in moments for name in each["samples"][DRIFT]}
    most = {name: max(_sample(each, DRIFT, name) or 0.0 for each in moments) for name in names}
    for colour, name in zip(SERIES, sorted(most, key=lambda each: -most[each])[:FEATURES], strict=False):
        times, values = _curve(moments, lambda line, n=name: _sample(line, DRIFT, n))
        _plot(ax, times, values, color=colour, linewidth=1.3, label=name)
    if names:
        _legend(ax)
        ax.set_ylim(0, ROOM * ax.get_ylim()[1])


def drifts(lines: Sequence[Line]) -> list[Line]:
    """Return one line a moment with the largest drift of each feature: releases that answer side by side share it."""
    found: dict[float, dict[str, float]] = {}
    for line in lines:
        here = found.setdefault(line["time"], {})
        for name, value in line["samples"].get(DRIFT, {}).items():
            here[name] = max(value, here.get(name, 0.0))
    return [{"time": time, "samples": {DRIFT: found[time]}} for time in sorted(found)]


def _legend(ax: Axes) -> None:
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8, handlelength=1.2)


def _plot(ax: Axes, times: Sequence[Any], values: Sequence[float], **how: Any) -> None:
    """Draw a curve; a value with none before or after it is a dot, since no line leads to it."""
    known = [False, *(value == value for value in values), False]  # noqa: PLR0124  (not NaN)
    alone = [place for place in range(len(values)) if known[place + 1] and not known[place] and not known[place + 2]]
    ax.plot(times, values, **how, marker="o" if alone else None, markersize=3, markevery=alone)


def _traffic(ax: Axes, watched: Mapping[Own, Sequence[Line]], colours: Mapping[Own, str]) -> None:
    ax.set_title("rows a second")
    for own, lines in watched.items():
        usual = _usual_step(lines)
        times: list[Any] = []
        values: list[float] = []
        for before, line in pairwise(lines):
            seconds = line["time"] - before["time"]
            if seconds > 0:
                times.append(_date(line["time"]))
                rate = max(0.0, line["rows"] - before["rows"]) / seconds
                values.append(rate if seconds <= GAP * usual else float("nan"))
        _plot(ax, times, values, color=colours[own], linewidth=1.4)
    if ax.has_data():
        ax.set_ylim(0, ROOM * ax.get_ylim()[1])


def _curve(lines: Sequence[Line], value: Any) -> tuple[list[Any], list[float]]:
    """Return times and values, NaN where there is none or the history has a gap."""
    times: list[Any] = []
    values: list[float] = []
    usual = _usual_step(lines)
    before = None
    for line in lines:
        if before is not None and line["time"] - before > GAP * usual:
            times.append(_date(before + usual))
            values.append(float("nan"))
        found = value(line)
        times.append(_date(line["time"]))
        values.append(float("nan") if found is None else float(found))
        before = line["time"]
    return times, values


def _stretches(lines: Sequence[Line]) -> list[tuple[float, float]]:
    usual = _usual_step(lines)
    found = [[lines[0]["time"], lines[0]["time"]]]
    for line in lines[1:]:
        if line["time"] - found[-1][1] > GAP * usual:
            found.append([line["time"], line["time"]])
        found[-1][1] = line["time"]
    return [(start, max(end, start + usual)) for start, end in found]


def _usual_step(lines: Sequence[Line]) -> float:
    steps = sorted(after["time"] - line["time"] for line, after in pairwise(lines))
    return float(steps[len(steps) // 2]) if steps else 60.0


def _standing(line: Line, signal: str, place: int) -> float | None:
    found: float | None = line["standings"].get(signal, [None] * 5)[place]
    return found


def _sample(line: Line, metric: str, labels: str, factor: float = 1.0) -> float | None:
    found = line["samples"].get(metric, {}).get(labels)
    return None if found is None else found * factor


def _date(time: float) -> Any:
    return datetime.fromtimestamp(time, UTC)
