"""Which classes a stage harmed: recall of each against the teacher's, on the same rows, as a table and a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from slimline.pipeline import ROOT
from slimline.report import numbers, picture
from slimline.report.numbers import Metric
from slimline.report.picture import COST, GAIN, GRID, INK, MUTED, Picture
from slimline.report.study import Study
from slimline.report.tables import NONE, Cell, Table

MOST_CLASSES = 25
HARMED = "harmed"
PANEL = 1.75  # inches


def classes(study: Study) -> int:
    """Return of how many classes the benchmark has the recall; 0 where the task has none."""
    return len(study.row(study.last).get("per_class") or {})


def worst_first(study: Study) -> list[str]:
    """Return the classes that lost most recall by the last stage."""
    own = study.row(study.last)["per_class"]
    return sorted(own, key=lambda label: -own[label]["drop"])[:MOST_CLASSES]


def stages(study: Study) -> list[str]:
    """Return the stages that are held against the teacher."""
    return [stage for stage in study.line if stage != ROOT and study.row(stage).get("per_class")]


def table(study: Study) -> Table | None:
    """Return the change in each class's recall by stage, worst first; None without classes or stages to compare."""
    if not classes(study) or study.last == ROOT:
        return None
    share = Metric("recall", higher_is_better=True, score=True, decimals=1)
    shown = stages(study)
    teacher: Mapping[str, Any] = study.row(ROOT).get("per_class") or {}
    rows = []
    for label in worst_first(study):
        own = teacher.get(label)
        cells = [Cell(share.value(own["recall"]), share.interval(own["recall_ci"])) if own else NONE]
        cells += [_change(share, study.row(stage)["per_class"].get(label)) for stage in shown]
        rows.append((label, cells))
    return Table(["class", "teacher's recall", *(f"{stage}, points" for stage in shown)], rows)


def _change(share: Metric, row: Mapping[str, Any] | None) -> Cell:
    if row is None:
        return NONE
    low, high = (numbers.points(-bound) for bound in reversed(row["drop_ci"]))
    note = f"{low} to {high}; recall {share.value(row['recall'])}"
    return Cell(numbers.points(-row["drop"]), note, HARMED if row.get("harmed") else "")


def plot(study: Study) -> Picture | None:
    """Draw the change in each class's recall, one panel a stage; None without classes or stages to compare."""
    if not classes(study) or study.last == ROOT:
        return None
    labels, shown = worst_first(study), stages(study)
    rows = {stage: study.row(stage)["per_class"] for stage in shown}
    ends = [bound for table in rows.values() for label in labels if label in table for bound in table[label]["drop_ci"]]
    limits = (-100 * max(ends), -100 * min(ends))
    margin = 0.06 * (limits[1] - limits[0])
    draws = [
        partial(_panel, stage=stage, rows=rows[stage], labels=labels, limits=(limits[0] - margin, limits[1] + margin))
        for stage in shown
    ]
    spoken = "; ".join(f"{stage} {_spoken(rows[stage], labels)}" for stage in shown)
    alt = f"change in recall by class against the teacher, in points: {spoken}"
    width = 0.4 + 0.075 * max(map(len, labels)) + PANEL * len(shown)
    return picture.svg_row("classes", width, 1.05 + 0.24 * len(labels), alt, draws)


def _spoken(rows: Mapping[str, Mapping[str, Any]], labels: Sequence[str]) -> str:
    return ", ".join(
        f"{label} {numbers.points(-rows[label]['drop'])}{' harmed' if rows[label].get('harmed') else ''}"
        for label in labels
        if label in rows
    )


def _panel(
    ax: Axes, stage: str, rows: Mapping[str, Mapping[str, Any]], labels: Sequence[str], limits: tuple[float, float]
) -> None:
    ax.axvline(0, color=MUTED, linewidth=1)
    for at, label in enumerate(labels):
        row = rows.get(label)
        if row is None:
            continue
        change, (high, low) = -row["drop"], (-bound for bound in row["drop_ci"])
        sure = COST if high < 0 else GAIN if low > 0 else MUTED
        ax.plot([100 * low, 100 * high], [at, at], color=sure, linewidth=1.6, alpha=0.75)
        filled = sure if row.get("harmed") else "none"
        ax.plot(
            100 * change, at, "o", markeredgecolor=sure, markerfacecolor=filled, markersize=5.5, markeredgewidth=1.4
        )
    ax.set_title(stage)
    ax.set_xlabel("points")
    ax.set_yticks(range(len(labels)), labels)
    ax.tick_params(axis="y", length=0, labelcolor=INK)
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.set_xlim(*limits)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: numbers.sign(f"{value:g}", signed=value > 0)))
    ax.xaxis.set_major_locator(MaxNLocator(5, prune="both"))
    ax.grid(axis="x", color=GRID)
