"""What the monitor finds, how late and at what cost: as markdown tables."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tables.measured import of_another_release, read


def regressions(root: Path) -> str:
    """Return metrics/regressions.json as a markdown table, a line a scenario; of several runs the worst is shown."""
    measured = read(root, "regressions")
    if not measured:
        return ""
    runs = list(measured["runs"].values())
    lines = [
        "planted | runs | points lost | first alarm | its rows; requests | blamed on | back | failed | goals",
        "|".join(["---", *["---:"] * 2, "---", "---", "---", *["---:"] * 3]),
    ]
    for letter in sorted({each["scenario"] for each in runs}):
        own = [each for each in runs if each["scenario"] == letter]
        alarms = [
            next((a for a in each["alarms"] if a["signal"] in ("accuracy", "agreement", "latency")), None)
            for each in own
        ]
        seen = [each for each in alarms if each]
        kept, goals = sum(sum(each["goals"].values()) for each in own), sum(len(each["goals"]) for each in own)
        lost = [max(each["points_lost"].values(), default=0.0) for each in own]
        back = [each["back_after"] for each in own if each["back_after"] is not None]
        until = [each["requests_until_alarm"] for each in own if each["requests_until_alarm"] is not None]
        cells = [
            f"({letter}) {own[0]['title']}",
            str(len(own)),
            f"{min(lost):.1f}" if any(lost) else "–",
            ", ".join(sorted({f"{a['signal']}" for a in seen})) + f" after {max(a['at'] for a in seen):.0f} s"
            if seen
            else "none",
            "; ".join([f"{max(a['rows'] for a in seen):,}", *([f"{max(until):,}"] if until else [])]) if seen else "–",
            ", ".join(sorted({str(a["blame"]) for each in own for a in each["alarms"] if a["blame"]})) or "–",
            f"{max(back):.1f} s" if back else "–",
            str(sum(each["failed"] for each in own)),
            f"{kept} of {goals}",
        ]
        lines.append(" | ".join(cells))
    return "\n".join([*(f"| {line} |" for line in lines), *of_another_release(root, runs)])


def simulated(root: Path) -> str:
    """Return what metrics/monitoring.json says of simulated streams, as one table of delays and one of run lengths."""
    found = read(root, "monitoring").get("simulated", {})
    if not found:
        return ""
    who = ("accuracy", "agreement", "estimate", "drift", "window of 500", "window of 2000", "CBPE")

    def strength(name: str) -> tuple[str, float]:
        number = re.search(r"[\d.]+", name)
        return re.sub(r"[\d.]+", "", name), float(number.group(0)) if number else 0.0

    def told(row: dict[str, Any] | None) -> str:
        if row is None:
            return ""
        median, p95 = (f"{each:,.0f}" if each is not None else "–" for each in (row["median"], row["p95"]))
        early = f", {row['before']} before" if row["before"] else ""
        return f"{median} / {p95} ({row['alarmed']}{early})" if row["alarmed"] or early else "none"

    lines = [
        " | ".join(["scenario", "accuracy then", "agreement then", *who]),
        "|".join(["---", *["---:"] * (len(who) + 2)]),
    ]
    for name, row in sorted(found["scenarios"].items(), key=lambda each: strength(each[0])):
        cells = [name, f"{row['accuracy']:.3f}", f"{row['agreement']:.3f}"]
        lines.append(" | ".join([*cells, *(told(row["signals"].get(each)) for each in who)]))
    lines += [
        "",
        "µs a row, sampled and labelled | " + " | ".join(found["cost_us"]),
        "---" + "|---:" * len(found["cost_us"]),
    ]
    lines.append(" | ".join(["processor time", *(f"{each:.1f}" for each in found["cost_us"].values())]))
    lines += ["", "rows that nothing is wrong with | rows | alarms | run length, at least (95%)", "---|---:|---:|---:"]
    for name, row in found["run_length"].items():
        lines.append(f"{name} | {row['rows']:,} | {row['alarms']} | {row['at_least']:,.0f}")
    return "\n".join([*(f"| {line} |" if line else "" for line in lines), *of_another_release(root, [found])])


def blame(root: Path) -> str:
    """Return blame's confusion matrix from metrics/monitoring.json: a line a planted fault, a column a verdict."""
    found = read(root, "monitoring").get("blame", {})
    if not found:
        return ""
    verdicts = [*found["line"][1:], "data", "serving", "nothing"]
    lines = [
        " | ".join([f"planted, {found['streams']} windows of {found['rows']:,} rows", *verdicts]),
        "|".join(["---", *["---:"] * len(verdicts)]),
    ]
    for name in dict.fromkeys(row["name"] for row in found["scenarios"]):
        own = [row for row in found["scenarios"] if row["name"] == name]
        cells = []
        for verdict in verdicts:
            counts = [row["verdicts"].get(verdict, 0) for row in own]
            shown = " / ".join(map(str, counts)) if any(counts) else ""
            cells.append(f"**{shown or 0}**" if verdict in own[0]["right"] else shown)
        lines.append(" | ".join([name, *cells]))
    return "\n".join([*(f"| {line} |" for line in lines), *of_another_release(root, [found])])


def speed(root: Path) -> str:
    """Return metrics/monitor-speed.json as one row."""
    found = read(root, "monitor-speed")
    if not found:
        return ""
    memory = found["memory_mb"]
    cells = [
        f"{found['events']:,}", f"{found['events_per_second']:,}", f"{memory['settled']:.0f} → {memory['end']:.0f}",
        f"{found['memory_mb_per_million_events']:+.1f}", f"{found['restart_seconds']:.1f}",
    ]  # fmt: skip
    head = "events | a second | resident MB, after a fifth → all | MB per million | s from start to the first read"
    lines = [f"| {line} |" for line in (head, "|".join(["---:"] * 5), " | ".join(cells))]
    return "\n".join([*lines, *of_another_release(root, [found])])
