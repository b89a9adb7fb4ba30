"""From a drawing to a picture: inline SVG whose colours follow the page, light or dark, and PNG."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK, MUTED, GRID, GAIN, COST = "#1c2128", "#57606b", "#d9dee4", "#0073b3", "#d45f00"
# neither blue nor orange: those say better and worse
SERIES = ("#333a42", "#009e73", "#6f42b5", "#7a4a30", "#c2539c", "#8f8a00", "#4fa9c4")
ROLES = {INK: "ink", MUTED: "muted", GRID: "grid", GAIN: "gain", COST: "cost"}
ROLES |= {colour: f"series-{index}" for index, colour in enumerate(SERIES)}
WIDTH = 4.1  # inches: a phone shows it without shrinking the text
STYLE: Any = {  # matplotlib types its keys one by one
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 9.3,
    "axes.titlesize": 10.3,
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.linewidth": 0.8,
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "text.parse_math": False,  # a label such as $5 is no formula
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
}

Draw = Callable[[Axes], None]


@dataclass(frozen=True)
class Picture:
    """An ``<svg>`` element and what it shows, in words."""

    svg: str
    alt: str


def svg(name: str, height: float, alt: str, draw: Draw) -> Picture:
    """Return the drawing as an ``<svg>`` element, ``height`` in inches. ``name`` keeps its ids apart from others'."""
    return svg_row(name, WIDTH, height, alt, [draw])


def svg_row(name: str, width: float, height: float, alt: str, draws: Sequence[Draw]) -> Picture:
    """Return drawings side by side on one y axis as an ``<svg>`` element, ``width`` and ``height`` in inches."""
    with rc_context(STYLE | {"svg.hashsalt": name}):
        figure, axes = _figure(len(draws), width, height, "none", share=True)
        for ax, draw in zip(axes, draws, strict=True):
            draw(ax)
        return element(figure, name, alt)


def element(figure: Figure, name: str, alt: str) -> Picture:
    """Return a figure that was drawn in ``STYLE``, with ``name`` as its hashsalt, as an ``<svg>`` element."""
    file = io.StringIO()
    figure.savefig(
        file, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
    )
    text = file.getvalue()
    text = text[text.index("<svg") :].strip()
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r'(href="#|url\(#)', rf"\1{name}-", text)
    text = re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, sans-serif", text)
    for colour, role in ROLES.items():
        text = text.replace(colour, f"var(--{role}, {colour})")
    label = f'<svg role="img" aria-label="{escape(alt)}" '
    return Picture(re.sub(r"^<svg ", lambda _: label, text), alt)


def png(height: float, draws: Sequence[Draw]) -> bytes:
    """Return the drawings side by side as a PNG on white."""
    with rc_context(STYLE):
        figure, axes = _figure(len(draws), WIDTH * len(draws), height, "white")
        for ax, draw in zip(axes, draws, strict=True):
            draw(ax)
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=150, metadata={"Software": None})
    return file.getvalue()


def _figure(panels: int, width: float, height: float, paper: str, *, share: bool = False) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width, height), dpi=72, layout="constrained", facecolor=paper)
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(1, panels, squeeze=False, sharey=share)[0])
