"""A verdict for people: a few lines, a Markdown page, and a picture of every stage."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimline import manifest
from slimline.deployment import short
from slimline.errors import SlimlineError
from slimline.monitor.blame.steps import Share
from slimline.monitor.blame.verdict import Blame

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NONE = "–"
HEAD = (
    "stage", "agrees with the one before", "reference", "accuracy", "lost against the one before", "reference",
)  # fmt: skip
WORST = 5


def lines(blame: Blame) -> list[str]:
    """Return the verdict, both opinions and the table as text."""
    found = [f"{blame.verdict}: {blame.why}"]
    found += [f"  {name}: {why}" for name, why in blame.opinions.items() if why != blame.why]
    found.append(f"{short(blame.revision)}{_seen(blame)}")
    rows = [_head(blame), *_cells(blame)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    found += ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    if worst := _worst(blame):
        found.append(f"hit most: {'; '.join(worst)}")
    if blame.examples:
        found.append(f"such as {', '.join(_example(each) for each in blame.examples[:WORST])}")
    if blame.digest is not None:
        found.append(f"{blame.stage} is {blame.digest}, made with {blame.params}")
    return found


def markdown(blame: Blame) -> str:
    """Return the same as a Markdown page."""
    text = [f"# Blame: {blame.verdict}", "", blame.why + ".", ""]
    text += [f"- {name}: {why}" for name, why in blame.opinions.items()]
    text += ["", f"Release `{blame.revision}`{_seen(blame)}; a stage may lose {blame.allowed}.", ""]
    text += [_row(_head(blame)), _row(["---"] * len(_head(blame))), *(_row(cells) for cells in _cells(blame))]
    if blame.classes:
        text += ["", "| label | rows | recall before | after | p (Holm) |", "|---|---|---|---|---|"]
        for each in blame.classes:
            before = each["recall"] + each["drop"]
            cells = [
                each["label"],
                str(each["rows"]),
                f"{before:.1%}",
                f"{each['recall']:.1%}",
                f"{each['p_holm']:.2g}",
            ]
            text.append(_row(cells))
    if blame.examples:
        text += ["", "Rows that it spoiled, those first of which the one before was surest:", ""]
        text += [f"- {_example(each)}" for each in blame.examples]
    if blame.digest is not None:
        text += ["", f"`{blame.stage}` is `{blame.digest}`, made with", "", "```json"]
        text += [manifest.as_json(blame.params).rstrip(), "```"]
    return "\n".join(text) + "\n"


def png(blame: Blame) -> bytes:
    """Return a picture: agreement, accuracy and latency of every stage, the one blamed marked. Needs matplotlib."""
    try:
        from slimline.report import picture
    except ModuleNotFoundError as error:
        raise SlimlineError(f"blame: {error.name} isn't installed: pip install 'slimline[train]'") from error
    return picture.png(0.9 + 0.42 * len(blame.reference), [partial(panel, blame=blame) for panel in PANELS])


def write(blame: Blame, folder: Path) -> list[Path]:
    """Write blame.json, blame.md and blame.png into ``folder``; without matplotlib there is no picture."""
    paths = [folder / "blame.json", folder / "blame.md"]
    manifest.write_json(paths[0], blame.as_dict())
    manifest.write_text(paths[1], markdown(blame))
    try:
        content = png(blame)
    except SlimlineError:
        return paths
    (folder / "blame.png").write_bytes(content)
    return [*paths, folder / "blame.png"]


def _seen(blame: Blame) -> str:
    if not blame.rows and not blame.requests:
        return ", its reference rows alone"
    return f", {blame.requests} requests, {blame.rows} rows through every stage, {blame.labelled} of them labelled"


def _head(blame: Blame) -> list[str]:
    return [*HEAD, _latency_title(blame), "benchmark"]


def _latency_title(blame: Blame) -> str:
    """Return what was timed, in the report's words."""
    return f"latency p50, batch {blame.timed[0].batch}" if blame.timed else "latency p50"


def _cells(blame: Blame) -> list[list[str]]:
    timed = {each.stage: each for each in blame.timed}
    rows = []
    for now, then in zip(blame.window, blame.reference, strict=True):
        speed = timed.get(now.stage)
        rows.append(
            [
                f"**{now.stage}**" if now.stage == blame.stage else now.stage,
                *(_share(each) for each in (now.agreement, then.agreement, now.accuracy, now.loss, then.loss)),
                NONE if speed is None else f"{speed.p50:.3g} ms",
                NONE if speed is None or speed.benchmark is None else f"{speed.benchmark:.3g} ms",
            ]
        )  # fmt: skip
    return rows


def _share(share: Share | None) -> str:
    return NONE if share is None else f"{share.value:.1%} [{share.low:.1%}, {share.high:.1%}]"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _worst(blame: Blame) -> list[str]:
    return [
        f"{each['label']} {each['recall'] + each['drop']:.0%} → {each['recall']:.0%}"
        for each in blame.classes[:WORST]
        if each["harmed"]
    ]


def _example(example: dict[str, Any]) -> str:
    if "before" not in example:
        return str(example["id"])
    truth = f" (true: {example['label']})" if example["label"] is not None else ""
    return f"{example['id']}: {example['before']} → {example['after']}{truth}"


def _agreement(ax: Axes, blame: Blame) -> None:
    _dots(ax, blame, "agrees with the one before", lambda step: step.agreement)


def _accuracy(ax: Axes, blame: Blame) -> None:
    _dots(ax, blame, "accuracy", lambda step: step.accuracy)


def _dots(ax: Axes, blame: Blame, title: str, chosen: Any) -> None:
    """Draw the window's shares with their intervals, and the reference rows' as open circles above them."""
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    from slimline.report.picture import INK, MUTED

    for which, steps, shift in (("reference rows", blame.reference, -0.16), ("window", blame.window, 0.16)):
        for row, step in enumerate(steps):
            share: Share | None = chosen(step)
            if share is None:
                continue
            colour = MUTED if which == "reference rows" else _colour(step, blame, INK)
            ax.plot([share.low, share.high], [row + shift] * 2, color=colour, linewidth=1.6)
            filled = "none" if which == "reference rows" else colour
            ax.plot(share.value, row + shift, "o", color=colour, markerfacecolor=filled, markersize=5.5)
    ax.set_title(title)
    ax.set_xlabel("○ reference rows   ● window" if blame.rows else "○ reference rows")
    ax.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    _stages(ax, blame)


def _latency(ax: Axes, blame: Blame) -> None:
    from slimline.report.picture import INK, MUTED

    for row, each in enumerate(blame.timed):
        colour = _colour(each, blame, INK)
        if each.benchmark is not None:
            ax.plot(each.benchmark, row - 0.16, "o", color=MUTED, markerfacecolor="none", markersize=5.5)
        ax.plot(each.interval, [row + 0.16] * 2, color=colour, linewidth=1.6)
        ax.plot(each.p50, row + 0.16, "o", color=colour, markersize=5.5)
    ax.set_xlim(left=0)
    ax.set_title(_latency_title(blame))
    ax.set_xlabel("ms   ○ benchmark   ● replayed now")
    _stages(ax, blame)


def _stages(ax: Axes, blame: Blame) -> None:
    names = [step.stage for step in blame.reference]
    ax.set_yticks(range(len(names)), names)
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.grid(axis="x")
    for label, name in zip(ax.get_yticklabels(), names, strict=True):
        if name == blame.stage:
            label.set_fontweight("bold")


def _colour(step: Any, blame: Blame, otherwise: str) -> str:
    from slimline.report.picture import COST

    return COST if step.stage == blame.stage else otherwise


PANELS = (_agreement, _accuracy, _latency)
