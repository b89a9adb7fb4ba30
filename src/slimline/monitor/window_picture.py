"""Latency, quality, drift and traffic of a window on one time axis, with releases and alarms. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from slimline.deployment import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from slimline.report.picture import Picture

WIDTH = 12.5  # inches
HEIGHTS = {"releases": 0.55, "latency": 1.5, "accuracy": 1.9, "agreement": 1.5, "drift": 1.5, "traffic": 1.1}
FEATURES = 5  # of drift, those that went furthest
ALARM = "#d55e00"  # no release has the colour of alarms
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

    watched: dict[Own, list[Line]] = {}
    for line in lines:
        watched.setdefault((line["revision"], line["variant"]), []).append(line)
    series = [colour for colour in picture.SERIES[1:] if colour != ALARM]
    colours = dict(zip(watched, (series * len(watched))[: len(watched)], strict=True))
    with rc_context(picture.STYLE | {"svg.hashsalt": "window"}):
        figure = Figure(figsize=(WIDTH, sum(HEIGHTS.values()) + 1.2), dpi=72, layout="constrained", facecolor="none")
        FigureCanvasAgg(figure)
        axes = dict(
            zip(
                HEIGHTS,
                figure.subplots(len(HEIGHTS), 1, sharex=True, height_ratios=list(HEIGHTS.values())),
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
                ax.axvline(_date(mark.time), color=ALARM, linewidth=1.2, zorder=4)
                if mark.until is not None:
                    ax.axvspan(_date(mark.time), _date(mark.until), color=ALARM, alpha=0.09, linewidth=0)
        _number(axes["releases"], marks)
        last = axes["traffic"]
        last.set_xlim(_date(since), _date(until))
        locator = AutoDateLocator(tz=UTC)  # type: ignore[no-untyped-call]
        last.xaxis.set_major_locator(locator)
        last.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=UTC))  # type: ignore[no-untyped-call]
        alt = f"{len(watched)} releases, {len(marks)} alarms: {', '.join(mark.signal for mark in marks) or 'none'}"
        return picture.element(figure, "window", alt)


def _releases(ax: Axes, watched: Mapping[Own, Sequence[Line]], colours: Mapping[Own, str]) -> None:
    variants = list(dict.fromkeys(variant for _, variant in watched))
    for own, lines in watched.items():
        row = variants.index(own[1])
        for start, end in _stretches(lines):
            ax.plot([_date(start), _date(end)], [row, row], color=colours[own], linewidth=7, solid_capstyle="butt")
        label = f"{short(own[0])}"
        ax.annotate(
            label, (_date(lines[0]["time"]), row), (3, 7), textcoords="offset points", color=colours[own], fontsize=8.5
        )
    ax.set_yticks(range(len(variants)), variants)
    ax.set_ylim(len(variants) - 0.4, -0.9)
    ax.tick_params(length=0)
    ax.spines[["left", "bottom"]].set_visible(False)


def _number(ax: Axes, marks: Sequence[Mark]) -> None:
    """Write each alarm's number above its line; those of one moment side by side."""
    together: dict[float, list[str]] = {}
    for mark in marks:
        near = next((time for time in together if abs(time - mark.time) < 60), mark.time)
        together.setdefault(near, []).append(str(mark.number))
    for time, numbers in together.items():
        ax.annotate(
            ", ".join(numbers), (_date(time), 1), (0, 2), xycoords=("data", "axes fraction"),
            textcoords="offset points", ha="center", va="bottom", color=ALARM, fontsize=9, annotation_clip=False,
        )  # fmt: skip


def _latency(ax: Axes, watched: Mapping[Own, Sequence[Line]], colours: Mapping[Own, str]) -> None:
    ax.set_title("latency of the last 500 requests: p50, p95 (thin), p99 (dotted), ms")
    for own, lines in watched.items():
        for quantile, style, width in (("0.5", "-", 1.6), ("0.95", "-", 0.8), ("0.99", ":", 0.9)):
            times, values = _curve(lines, lambda line, q=quantile: _sample(line, "slimline_latency_seconds", q, 1e3))
            ax.plot(times, values, style, color=colours[own], linewidth=width)
    if ax.has_data():
        low, high = ax.get_ylim()
        if high > 20 * max(low, 1e-3):
            ax.set_yscale("log")
        else:
            ax.set_ylim(bottom=0)


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
        ax.plot(times, values, color=colour, linewidth=1.6)
        ax.plot(times, floor, color=colour, linewidth=1.0, linestyle=(0, (4, 3)))
        if signal == "accuracy":
            moments, estimate = _curve(lines, lambda line: _sample(line, "slimline_accuracy_estimate_ratio", "value"))
            ax.plot(moments, estimate, ":", color=colour, linewidth=1.2)


def _drift(ax: Axes, lines: Sequence[Line]) -> None:
    from slimline.report.picture import SERIES

    ax.set_title("drift of inputs and answers, all revisions")
    names = {name for line in lines for name in line["samples"].get("slimline_drift_score", {})}
    most = {name: max(_sample(line, "slimline_drift_score", name) or 0.0 for line in lines) for name in names}
    for index, name in enumerate(sorted(most, key=lambda each: -most[each])[:FEATURES]):
        times, values = _curve(lines, lambda line, n=name: _sample(line, "slimline_drift_score", n))
        ax.plot(times, values, color=SERIES[index % len(SERIES)], linewidth=1.3, label=name)
    if names:
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8, handlelength=1.2)
        ax.set_ylim(bottom=0)


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
        ax.plot(times, values, color=colours[own], linewidth=1.4)
    if ax.has_data():
        ax.set_ylim(bottom=0)


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
