"""What stages, methods and other tools make of a teacher: as markdown tables."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import operators
from tables.measured import read


def report(root: Path) -> str:
    """Return the stage table of report/report.md."""
    text = (root / "report" / "report.md").read_text(encoding="utf-8")
    rows = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)
    return rows.group(0).strip() if rows else ""


def ablation(root: Path) -> str:
    """Return metrics/ablation.json as two markdown tables; a mean of differences stands with its 95% interval."""
    measured = read(root, "ablation")
    if not measured:
        return ""

    def points(bounds: list[float]) -> str:
        low, mean, high = (100 * each for each in bounds)
        return f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]"

    left_out = measured.get("left_out", {})
    batches = list(left_out["whole"]["latency_ms"][0]) if left_out else []
    head = ["left out", "accuracy", "the chain gains, points", "bytes", *(f"ms, batch {batch}" for batch in batches)]
    lines = [" | ".join(head), "|".join(["---", *["---:"] * (len(head) - 1)])]
    for stage, row in left_out.items():
        size = sum(row["bytes"]) / len(row["bytes"])
        times = [[each[batch] for each in row["latency_ms"]] for batch in batches]
        name, gains = ("nothing", "") if stage == "whole" else (stage, points(row["chain_minus_this"]))
        cells = [f"{sum(each) / len(each):.3f} ({min(each):.3f}–{max(each):.3f})" for each in times]
        lines.append(" | ".join([name, f"{row['mean']:.4f}", gains, f"{size:,.0f}", *cells]))
    lines = [*lines, ""] if left_out else []
    lines += [
        "from scratch, without a teacher | parameters | accuracy | the chain gains, points",
        "---|---:|---:|---:",
    ]
    for name, row in measured.get("from_scratch", {}).items():
        lines.append(f"{name} | {row['params']:,} | {row['mean']:.4f} | {points(row['chain_minus_this'])}")
    return "\n".join(f"| {line} |" if line else "" for line in lines)


def methods(root: Path) -> str:
    """Return metrics/methods.json as a markdown table a heading of the grid, then what whitening is worth."""
    measured = read(root, "methods")
    if not measured:
        return ""
    rows, primary = {row["name"]: row for row in measured["methods"]}, measured["primary"]
    batches = list(rows["teacher"].get("latency_ms", {}))  # none where the clock was left out
    head = [primary, "drop, points", "bytes", "M multiply-adds", *(f"ms, batch {each}" for each in batches), "goal"]
    lines: list[str] = []
    for table in dict.fromkeys(row["table"] for row in rows.values() if row["table"]):
        lines += ["", " | ".join([table, *head]), "|".join(["---", *["---:"] * (len(head) - 1), "---"])]
        for row in [rows["teacher"], *(row for row in rows.values() if row["table"] == table)]:
            low, high = (100 * each for each in row["drop_ci"])
            drop = "" if row["stage"] == "teacher" else f"{100 * row[f'{primary}_drop']:+.2f} [{low:+.2f}, {high:+.2f}]"
            share = "{:.4f} [{:.4f}, {:.4f}]".format(row[primary], *row[f"{primary}_ci"])
            times = [f"{row['latency_ms'][each]['p50']:.3f} ({row['speedup'][each]:.2f}×)" for each in batches]
            cells = [row["name"], share, drop, f"{row['bytes']:,}", f"{row['macs'] / 1e6:.1f}", *times, _goal(row)]
            lines.append(" | ".join(cells))
    whitened = [name for name in rows if f"{name}, plain" in rows]
    if whitened:
        lines += [
            "",
            "share of the teacher's before healing | bare weights | whitened, refit | more",
            "---|---:|---:|---:",
        ]
    for name in whitened:
        bare, own = (rows[each][primary] / rows["teacher"][primary] for each in (f"{name}, plain", name))
        lines.append(f"{name} | {bare:.1%} | {own:.1%} | {own / bare - 1:+.0%}")
    return "\n".join(f"| {line} |" if line else "" for line in lines).strip()


def _goal(row: dict[str, Any]) -> str:
    """Return a row's goal in words and whether it was met, nothing where it has none."""
    goal = row["goal"]
    words = [
        *([f"drop ≤ {100 * goal['drop']:g}"] if "drop" in goal else []),
        *([f"≥ {goal['speedup']:g}×"] if "speedup" in goal else []),
        *([f"keeps ≥ {goal['keeps']:g}× of plain"] if "keeps" in goal else []),
    ]
    verdict = {True: "met", False: "missed", None: "not timed"}[row.get("met")]
    if row.get("met") and (
        row["drop_ci"][1] > goal.get("drop", float("inf"))
        or min((low for low, _ in row["speedup_ci"].values()), default=0.0) < goal.get("speedup", 0.0)
    ):
        verdict = "met, its interval isn't within"
    return f"{', '.join(words)}: {verdict}" if words else ""


def peers(root: Path) -> str:
    """Return metrics/peers.json as tables: what each tool made of the teacher, what was aimed at, the nearest peers row
    by row, where time goes.
    """
    lines: list[str] = []
    for name, workload in read(root, "peers")["workloads"].items():
        primary, rows = workload["primary"], workload["variants"]
        places = list(next(iter(rows.values()))["latency_ms"])
        rows = dict(sorted(rows.items(), key=lambda each: each[1]["speedup"][places[0]]))
        head = [primary, "macro-F1", "agrees", "bytes", *(f"ms, {place}" for place in places)]
        lines += [
            "",
            f"{name}, {workload['rows']:,} rows | " + " | ".join(head),
            "|".join(["---", *["---:"] * len(head)]),
        ]
        for variant, row in rows.items():
            score = "{:.4f} [{:.4f}, {:.4f}]".format(row[primary], *row[f"{primary}_ci"])
            speeds = [f"{row['latency_ms'][place]:.2f} ({row['speedup'][place]:.2f}×)" for place in places]
            cells = [variant, score, f"{row['macro_f1']:.4f}", f"{row['agreement']:.2%}", f"{row['bytes']:,}", *speeds]
            lines.append(" | ".join(cells))
        for variant, why in workload.get("failed", {}).items():
            lines.append(" | ".join([variant, f"failed: {why.replace('|', '/')}", *[""] * (len(head) - 1)]))
        for variant in workload.get("left_out", []):
            lines.append(" | ".join([variant, "left out", *[""] * (len(head) - 1)]))
        if goals := workload.get("goals"):
            lines += ["", f"{name}: {workload['ours']} | " + " | ".join([*places, "met"])]
            lines += ["|".join(["---", *["---"] * len(places), "---"])]
            lines += [_peer_goal(goal, places) for goal in goals]
        if nearest := workload.get("nearest"):
            lines += ["", *_nearest(f"{name}: {workload['ours']}", rows, workload["ours"], nearest, places)]
        if profiles := workload.get("operators"):
            lines += ["", *_operators(name, profiles)]
    return "\n".join(f"| {line} |" if line else "" for line in lines).strip()


def _nearest(
    title: str, rows: dict[str, Any], ours: str, nearest: dict[str, dict[str, Any]], places: list[str]
) -> list[str]:
    """Return how many points ours lies below each of the nearest peers on the same rows, and how much faster it is."""
    metrics = list(next(iter(nearest.values())))
    head = [*(f"points of {metric} below it" for metric in metrics), *(f"times as fast, {place}" for place in places)]
    lines = [f"{title}, beside | " + " | ".join(head), "|".join(["---", *["---:"] * len(head)])]
    for peer, drops in nearest.items():
        points = [
            "{:+.2f} [{:+.2f}, {:+.2f}]".format(*(100 * each for each in (found["drop"], *found["ci"])))
            for found in (drops[metric] for metric in metrics)
        ]
        own, other = rows[ours]["latency_ms"], rows[peer]["latency_ms"]
        lines.append(" | ".join([peer, *points, *(f"{other[place] / own[place]:.2f}×" for place in places)]))
    return lines


def _operators(name: str, profiles: dict[str, dict[str, dict[str, float]]]) -> list[str]:
    """Return what each kind of operator takes in each variant and place, most of it first."""
    columns = [(variant, place, spent) for variant, places in profiles.items() for place, spent in places.items()]
    kinds = list(dict.fromkeys(kind for *_, spent in reversed(columns) for kind in spent))
    kinds.sort(key=lambda kind: kind == operators.OTHERS)
    rows = ([kind, *(f"{spent[kind]:,.0f}" if kind in spent else "" for *_, spent in columns)] for kind in kinds)
    return [
        f"{name}: µs by kind of operator | " + " | ".join(f"{variant}, {place}" for variant, place, _ in columns),
        "|".join(["---", *["---:"] * len(columns)]),
        *map(" | ".join, rows),
    ]


def _peer_goal(goal: dict[str, Any], places: list[str]) -> str:
    """Return one goal as cells: measured at each place, with what, and missed by how much."""
    points = goal["unit"] == "points"

    def told(found: dict[str, Any]) -> str:
        if found["value"] is None:
            return "no such peer"
        value = f"{found['value']:+.2f}" if points else f"{found['value']:.2f}×"
        ci = " [{:{sign}.2f}, {:{sign}.2f}]".format(*found["ci"], sign="+" if points else "") if found["ci"] else ""
        over = f" {found['over']}" if found["over"] and found["over"] not in goal["aim"] else ""
        missed = "" if found["met"] else f"; **missed by {found['missed_by']:.2f}{' points' if points else '×'}**"
        return f"{value}{ci}{over}{missed}"

    found = goal["places"]
    cells = (
        [told(found[place]) for place in places] if "" not in found else [told(found[""]), *[""] * (len(places) - 1)]
    )
    return " | ".join([goal["aim"], *cells, "yes" if goal["met"] else "no"])
