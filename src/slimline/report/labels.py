"""Labels beside points that may nearly coincide: each takes the free place that costs least."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import cos, hypot, radians, sin
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.transforms import Bbox

from slimline.report.picture import INK, MUTED

RADII = (11.0, 20.0, 32.0, 46.0, 62.0, 80.0)
ANGLES = (0, 180, 90, 270, 45, 135, 315, 225, 20, 160, 340, 200, 65, 115, 295, 245)
LEADER = {"arrowstyle": "-", "color": MUTED, "linewidth": 0.7, "shrinkA": 1, "shrinkB": 3}
ROOM = 5.0  # points of free space around a marker
SAME = 3.0


def place(ax: Axes, points: Sequence[tuple[float, float]], texts: Sequence[str]) -> None:
    """Write each text near its point (data coordinates), off other texts, markers and, if it can be, the lines drawn.

    Points that can't be told apart share one label. The axes' limits must be final.
    """
    canvas = ax.figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)  # noqa: S101  (picture.py makes it so; tells mypy)
    canvas.figure.draw_without_rendering()
    renderer: Any = canvas.get_renderer()  # type: ignore[no-untyped-call]
    frame = ax.get_window_extent(renderer)
    at = [tuple(ax.transData.transform(point)) for point in points]
    markers = [_around(x, y, ROOM) for x, y in at]
    lines = _drawn(ax)
    taken: list[Bbox] = []
    for (x, y), point, text in _merged(at, points, texts):
        probe = ax.text(0, 0, text)
        size = probe.get_window_extent(renderer)
        probe.remove()
        best = min(
            (_candidate(x, y, size.width, size.height, radius, angle) for radius in RADII for angle in ANGLES),
            key=lambda box: _cost(box, x, y, frame, taken, markers, lines),
        )
        taken.append(best)
        middle = ((best.x0 + best.x1) / 2, (best.y0 + best.y1) / 2)
        far = hypot(max(best.x0 - x, x - best.x1, 0), max(best.y0 - y, y - best.y1, 0)) > 9
        note = ax.annotate(
            text, point, xytext=(middle[0] - x, middle[1] - y), textcoords="offset points", ha="center", va="center",
            color=INK, zorder=6, arrowprops=LEADER if far else None,
        )  # fmt: skip
        note.set_in_layout(False)


def _drawn(ax: Axes) -> list[Bbox]:
    """Return small boxes along every line in ``ax``, in display coordinates."""
    boxes = []
    for line in ax.get_lines():
        at = line.get_transform().transform(line.get_xydata())
        for (x0, y0), (x1, y1) in pairwise(at):
            parts = max(1, int(hypot(x1 - x0, y1 - y0) / 5))
            middles = [(part + 0.5) / parts for part in range(parts)]
            boxes += [_around(x0 + (x1 - x0) * middle, y0 + (y1 - y0) * middle, 2) for middle in middles]
    return boxes


def _around(x: float, y: float, reach: float) -> Bbox:
    return Bbox.from_extents(x - reach, y - reach, x + reach, y + reach)


def _merged(
    at: Sequence[tuple[float, float]], points: Sequence[tuple[float, float]], texts: Sequence[str]
) -> list[tuple[tuple[float, float], tuple[float, float], str]]:
    """Return (display position, data position, text), joining the texts of points closer than ``SAME``."""
    merged: list[tuple[tuple[float, float], tuple[float, float], str]] = []
    for position, point, text in zip(at, points, texts, strict=True):
        for index, (other, kept, joined) in enumerate(merged):
            if hypot(position[0] - other[0], position[1] - other[1]) < SAME:
                merged[index] = (other, kept, f"{joined}, {text}")
                break
        else:
            merged.append((position, point, text))
    return merged


def _candidate(x: float, y: float, width: float, height: float, radius: float, angle: float) -> Bbox:
    """Return the box of a label whose near edge lies ``radius`` from (x, y) in the direction of ``angle``."""
    across, up = cos(radians(angle)), sin(radians(angle))
    left = x + radius * across + (across - 1) * width / 2
    bottom = y + radius * up + (up - 1) * height / 2
    return Bbox.from_bounds(left, bottom, width, height)


def _cost(
    box: Bbox, x: float, y: float, frame: Bbox, taken: Sequence[Bbox], markers: Sequence[Bbox], lines: Sequence[Bbox]
) -> float:
    near = box.padded(1.5)
    outside = (
        max(frame.x0 - box.x0, 0) + max(box.x1 - frame.x1, 0) + max(frame.y0 - box.y0, 0) + max(box.y1 - frame.y1, 0)
    )
    crossed = min(near.count_overlaps(lines), 8)
    hidden = near.count_overlaps([*taken, *markers])
    distance = hypot((box.x0 + box.x1) / 2 - x, (box.y0 + box.y1) / 2 - y)
    return float(distance + 12 * crossed + 1000 * hidden + 100 * outside)
