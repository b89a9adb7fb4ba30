"""How fast and for how long the endpoint answers: as markdown tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tables.measured import read


def serving(root: Path) -> str:
    """Return metrics/serving.json as markdown: a table a model, and what was aimed at; ratios with 95% intervals."""
    measured = read(root, "serving")
    if not measured:
        return ""
    lines = []
    for model, found in measured["models"].items():
        head = (
            f"{model}, {measured['repeats']} rounds", "p50 ms, 1 client", "added, µs", "requests/s, 32 clients",
            "of starlette's", "of bentoml's",
            "p50, p99 ms at 70% load", "ready, s",
        )  # fmt: skip
        lines += [" | ".join(head), "|".join(["---", *["---:"] * 7])]
        variants = found["variants"]
        for name, row in sorted(variants.items(), key=lambda each: each[1]["1"]["p50_ms"]):
            load = row.get("load")
            cells = [name, f"{row['1']['p50_ms']:.3f}", f"{row['added_us']['1']:,.0f}"]
            cells += [f"{row['32']['throughput']:,.0f}"]
            cells += [
                _ratio(row["ratios"][other]["32"]["throughput"]) if other in row["ratios"] else "–"
                for other in ("starlette", "bentoml")
            ]
            cells += [f"{load['p50_ms']:.2f}, {load['p99_ms']:.2f}" if load else "–"]
            cells += [f"{row['ready_s']:.1f}" if "ready_s" in row else "–"]
            lines.append(" | ".join(cells))
        lines.append("")
    lines += ["aimed at | measured | met", "---|---:|---"]
    lines += [_goal(goal) for goal in measured["goals"]]
    return "\n".join(f"| {line} |" if line else "" for line in lines).strip()


def soak(root: Path) -> str:
    """Return metrics/soak.json as one row."""
    found = read(root, "soak")
    if not found:
        return ""
    low, slope, high = found["mb_per_100k"]
    first, last = found["resident_mb"]
    times_ms = found.get("latency_ms")
    cells = [
        f"{found['requests']:,}", f"{found['rate']:,.0f}", f"{found['errors']:,}", f"{found['events']:,}",
        f"{slope:+.2f} [{low:+.2f}, {high:+.2f}]", f"{first:.0f} → {last:.0f}",
        ", ".join(f"{times_ms[each]:.1f}" for each in ("p50", "p99", "p99.9", "p100")) if times_ms else "–",
    ]  # fmt: skip
    head = "requests | a second | errors | events stored | MiB per 100,000 | resident MiB | p50, p99, p99.9, max ms"
    return "\n".join(f"| {line} |" for line in (head, "|".join(["---:"] * 7), " | ".join(cells)))


def timers(root: Path) -> str:
    """Return metrics/timers.json as a row a server."""
    measured = read(root, "timers")
    if not measured:
        return ""
    head = f"{measured['requests']:,} requests at {measured['rate']:,.0f} a second"
    lines = [
        f"{head} | p50 ms | p99 | p99.9 | max | later than 100 ms | memory grew, MiB",
        "---|---:|---:|---:|---:|---:|---:",
    ]
    for name, row in measured["servers"].items():
        cells = [f"{row[each]:.2f}" for each in ("p50_ms", "p99_ms", "p99.9_ms", "p100_ms")]
        lines.append(" | ".join([name, *cells, f"{row['later_than_100_ms']:.2%}", f"{row['grown_mb']:.0f}"]))
    return "\n".join(f"| {line} |" for line in lines)


def _ratio(bounds: list[float]) -> str:
    """Return [low, middle, high] as text."""
    low, middle, high = bounds
    return f"{middle:.2f}× [{low:.2f}, {high:.2f}]"


def _goal(goal: dict[str, Any]) -> str:
    """Return one goal of metrics/serving.json as cells."""
    if goal["met"] is None:
        measured, met = "not measured", "–"
    elif goal["what"] == "ready_s":
        least, median, most = goal["ready_s"]
        measured, met = f"{median:.1f} s, {least:.1f} to {most:.1f}", "yes" if goal["met"] else "no"
    else:
        measured, met = _ratio(goal["ratio"]), _within(goal)
    if goal["what"] == "ready_s":
        return f"{goal['variant']}: every start ready within {goal['bound']:.0f} s, no torch in it | {measured} | {met}"
    what = goal["what"].removesuffix("_ms")
    where = "at 70% load" if goal["clients"] == "load" else f"at {goal['clients']}"
    aim = f"{'≥' if goal['at_least'] else '≤'} {goal['bound']:.2f}× {goal['of']}"
    return f"{goal['model']}: {what} {where} of {goal['variant']} {aim} | {measured} | {met}"


def _within(goal: dict[str, Any]) -> str:
    low, _, high = goal["ratio"]
    if goal["met"] and (low < goal["bound"] if goal["at_least"] else high > goal["bound"]):
        return "yes, its interval isn't within"
    return "yes" if goal["met"] else "no"
