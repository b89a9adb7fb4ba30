"""A picture of a sensitivity study: layers down, methods and strengths across, the loss as colour and number."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from slimline.report.picture import INK, MUTED, STYLE

CELL = (0.72, 0.34)  # inches
PAPER = "#ffffff"


def draw(
    path: Path,
    layers: Sequence[str],
    columns: Sequence[str],
    drops: NDArray[np.float64],
    gains: NDArray[np.float64],
    title: str,
) -> None:
    """Write a PNG. ``drops`` and ``gains`` are layers × columns; Drops are shown in points.

    A cell without a drop stays empty; one without a gain is a width for storage only.
    """
    with rc_context(STYLE):
        margin = 0.075 * max(map(len, layers)) + 0.2
        size = (margin + CELL[0] * len(columns) + 1.0, 1.5 + CELL[1] * len(layers))
        figure = Figure(figsize=size, layout="constrained", facecolor=PAPER)
        FigureCanvasAgg(figure)
        ax = figure.add_subplot()
        points = 100 * drops
        limit = max(1.0, float(np.nanmax(np.abs(points)))) if np.isfinite(points).any() else 1.0
        image = ax.imshow(points, cmap="RdBu_r", norm=TwoSlopeNorm(0, -limit, limit), aspect="auto")
        for (row, column), value in np.ndenumerate(points):
            if np.isfinite(value):
                ink = PAPER if abs(value) > 0.6 * limit else INK
                gain = gains[row, column]
                text = f"{value:+.1f}\n" + (f"{gain:.2f}×" if np.isfinite(gain) else "stored")
                ax.text(column, row, text, ha="center", va="center", fontsize=7, color=ink)
        ax.set_xticks(range(len(columns)), [name.replace(" ", "\n", 1) for name in columns], fontsize=7)
        ax.set_yticks(range(len(layers)), layers, fontsize=8)
        ax.tick_params(length=0)
        ax.xaxis.tick_top()
        ax.set_title(title, fontsize=10)
        for side in ax.spines.values():
            side.set_visible(False)
        bar: Any = figure.colorbar(image, ax=ax, fraction=0.03, pad=0.02)
        bar.set_label("points lost", color=MUTED)
        bar.outline.set_visible(False)
        figure.savefig(path, dpi=130)
