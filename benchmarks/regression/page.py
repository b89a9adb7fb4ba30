"""page.html: one run on one time axis: what was answered rightly and how fast, by which release, and every alarm."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from traffic import Sent

from slimline import manifest

WINDOW = 100  # answers that one point of a curve looks back on
SOUND, PLANTED, ALARM = "#2a6f97", "#c1502e", "#7a1f1f"
QUALITY = ("accuracy", "agreement")


def write(folder: Path, document: dict[str, Any], sent: list[Sent], planted_at: float, first: str | None) -> None:
    """Write page.html and picture.png of a run into ``folder``; times are seconds after ``planted_at``."""
    drawn = picture(document, sent, planted_at, first)
    (folder / "picture.png").write_bytes(drawn)
    pages = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
    page = pages.get_template("page.html.j2").render(run=document, picture=base64.b64encode(drawn).decode())
    manifest.write_text(folder / "page.html", page)


def picture(document: dict[str, Any], sent: list[Sent], planted_at: float, first: str | None) -> bytes:
    """Return the run as a PNG."""
    times = np.array([each.time - planted_at for each in sent])
    planted = np.array([each.revision not in {None, first} for each in sent])
    figure = Figure(figsize=(9, 4.6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    right = np.array([each.right for each in sent], np.float64)
    seconds = np.array([each.seconds for each in sent]) * 1e3
    _curve(upper, times, _trailing(right, np.mean), planted)
    _curve(lower, times, _trailing(seconds, lambda window: np.percentile(window, 95)), planted)
    upper.set_ylabel(f"right answers, last {WINDOW}")
    upper.set_ylim(0, 1)
    lower.set_ylabel("p95 at the client, ms")
    lower.set_yscale("log")
    lower.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    lower.yaxis.set_minor_locator(NullLocator())
    lower.yaxis.set_major_formatter("{x:g}")
    lower.set_xlabel("seconds after the regression was planted")
    for axes in (upper, lower):
        axes.axvline(0, color=PLANTED, linewidth=1, linestyle=":")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#dddddd", linewidth=0.6)
        for alarm in document["alarms"]:
            axes.axvline(alarm["at"], color=ALARM, linewidth=1.2 if alarm["signal"] in QUALITY else 0.6)
    for level, alarm in enumerate(document["alarms"]):
        said = f" {alarm['signal']}" + (f": {alarm['blame']}" if alarm["blame"] else "")
        upper.annotate(said, (alarm["at"], 0.03 + 0.085 * (level % 6)), color=ALARM, fontsize=8)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=130, metadata={"Software": None})
    return out.getvalue()


def _trailing(values: np.ndarray[Any, Any], reduce: Any) -> np.ndarray[Any, Any]:
    return np.array([reduce(values[max(0, end - WINDOW) : end]) for end in range(1, len(values) + 1)])


def _curve(axes: Axes, times: Any, values: Any, planted: Any) -> None:
    """Draw a curve whose colour says which release answered."""
    for chosen, color, name in ((~planted, SOUND, "the release before"), (planted, PLANTED, "the planted release")):
        if chosen.any():
            axes.plot(times, np.where(chosen, values, np.nan), color=color, linewidth=1.5, label=name)
    if planted.any() and axes.get_subplotspec().is_first_row():
        axes.legend(loc="lower left", fontsize=8, frameon=False)
