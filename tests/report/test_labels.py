"""Labels of points that nearly coincide can all be read."""

from itertools import combinations

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from slimline.report import labels

NAMES = ["teacher", "distill", "prune", "quantize", "factorize"]


@pytest.mark.parametrize("gap", [0.02, 0.04, 0.1], ids=lambda gap: f"gap {gap}")
def test_labels_overlap_neither_each_other_nor_a_marker(gap: float) -> None:
    points = [(9.0, 9.0), *((1.0 + gap * step, 4.0 - gap * step) for step in range(4))]
    figure = Figure(figsize=(4, 3.2), dpi=72)
    canvas = FigureCanvasAgg(figure)
    ax = figure.subplots()
    ax.set(xlim=(0, 10), ylim=(0, 10))
    labels.place(ax, points, NAMES)
    figure.draw_without_rendering()
    renderer = canvas.get_renderer()  # type: ignore[no-untyped-call]
    written = [each for each in ax.texts if isinstance(each, Annotation)]
    assert ", ".join(each.get_text() for each in written) == ", ".join(NAMES)
    boxes = [super(Annotation, each).get_window_extent(renderer) for each in written]
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    for x, y in ax.transData.transform(points):
        assert not any(box.contains(x, y) for box in boxes)
    frame = ax.get_window_extent(renderer)
    assert all(frame.containsx(box.x0) and frame.containsx(box.x1) for box in boxes)


def test_points_that_coincide_share_a_label() -> None:
    figure = Figure(figsize=(4, 3.2), dpi=72)
    FigureCanvasAgg(figure)
    ax = figure.subplots()
    ax.set(xlim=(0, 10), ylim=(0, 10))
    labels.place(ax, [(2.0, 2.0), (7.0, 7.0), (7.01, 7.0)], ["teacher", "quantize", "factorize"])
    assert [each.get_text() for each in ax.texts] == ["teacher", "quantize, factorize"]
