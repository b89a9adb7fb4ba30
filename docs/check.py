"""Check the documents: links lead somewhere, make targets and commands exist, tables are those last measured, and each
alert has its runbook.

python docs/check.py           # what ``make check`` runs
python docs/check.py --write   # copy the report's table into README.md, the others into docs/
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from slimline import provenance
from slimline.monitoring import rules

ROOT = Path(__file__).parent.parent
METHODS = ROOT / "docs" / "methods.md"
BENCHMARKS = ROOT / "docs" / "benchmarks.md"
MONITORING = ROOT / "docs" / "monitoring.md"


def main() -> int:
    """Print every mistake and return how many there are."""
    pages = [
        ROOT / "README.md",
        *sorted((ROOT / "docs").rglob("*.md")),
        *sorted((ROOT / "examples").rglob("README.md")),
    ]
    wrong = [each for page in pages for each in broken_links(page) + unknown_commands(page)]
    wrong += runbooks()
    tables = [
        (ROOT / "README.md", "report", report_table()),
        (METHODS, "ablation", ablation_table()),
        (METHODS, "methods", methods_tables()),
        (BENCHMARKS, "serving", serving_table()),
        (MONITORING, "regressions", regressions_table()),
        (BENCHMARKS, "soak", soak_table()),
        (BENCHMARKS, "timers", timers_table()),
        (BENCHMARKS, "training-loop", training_loop_table()),
        (BENCHMARKS, "own-data", own_data_table()),
        (BENCHMARKS, "peers", peers_tables()),
        (BENCHMARKS, "memory", memory_table()),
        (MONITORING, "speed", speed_table()),
        (MONITORING, "simulated", simulated_tables()),
        (MONITORING, "blame", blame_table()),
    ]
    for page, name, text in tables:
        if "--write" in sys.argv:
            write_table(page, name, text)
        elif table_of(page, name) != text:
            wrong.append(f"{page.name}: its {name} table is not what was measured; run python docs/check.py --write")
    print("\n".join(wrong) or f"docs: {len(pages)} pages hold")
    return len(wrong)


def broken_links(page: Path) -> list[str]:
    """Return the relative links of a page that lead nowhere."""
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    return [
        f"{page.relative_to(ROOT)}: no file {target}"
        for target in targets
        if "://" not in target and not (page.parent / target).exists()
    ]


def unknown_commands(page: Path) -> list[str]:
    """Return the make targets and slimline commands in a page's code that don't exist."""
    text = "\n".join(re.findall(r"```.*?```", page.read_text(encoding="utf-8"), re.DOTALL))
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    shown = subprocess.run(
        [sys.executable, "-m", "slimline", "--help"], capture_output=True, text=True, check=True
    ).stdout
    wrong = [
        f"{page.name}: make {name}: no such target"
        for name in re.findall(r"^make ([\w-]+)", text, re.MULTILINE)
        if name not in targets
    ]
    wrong += [
        f"{page.name}: slimline {name}: no such command"
        for name in re.findall(r"^slimline ([a-z]+)", text, re.MULTILINE)
        if name not in shown
    ]
    return wrong


def runbooks() -> list[str]:
    """Return the alerts of a release that have no runbook, and the runbooks that no alert links to."""
    alerts = {f"{name}.md" for name in rules.names()}
    pages = {page.name for page in (ROOT / "docs" / "runbooks").glob("*.md")}
    return [
        f"docs/runbooks: {name}: " + ("no such page" if name in alerts else "no such alert")
        for name in sorted(alerts ^ pages)
    ]


def report_table() -> str:
    """Return the stage table of report/report.md."""
    text = (ROOT / "report" / "report.md").read_text(encoding="utf-8")
    rows = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)
    return rows.group(0).strip() if rows else ""


def ablation_table() -> str:
    """Return metrics/ablation.json as two markdown tables; a mean of differences stands with its 95% interval."""
    path = ROOT / "metrics" / "ablation.json"
    if not path.is_file():
        return ""
    measured = json.loads(path.read_text(encoding="utf-8"))

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


def methods_tables() -> str:
    """Return metrics/methods.json as a markdown table a heading of the grid, then what whitening is worth."""
    path = ROOT / "metrics" / "methods.json"
    if not path.is_file():
        return ""
    measured = json.loads(path.read_text(encoding="utf-8"))
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
            cells = [row["name"], share, drop, f"{row['bytes']:,}", f"{row['macs'] / 1e6:.1f}", *times, goal_of(row)]
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


def goal_of(row: dict[str, Any]) -> str:
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


def serving_table() -> str:
    """Return metrics/serving.json as markdown: a table a model, and what was aimed at; ratios with 95% intervals."""
    path = ROOT / "metrics" / "serving.json"
    if not path.is_file():
        return ""
    measured = json.loads(path.read_text(encoding="utf-8"))
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
                times(row["ratios"][other]["32"]["throughput"]) if other in row["ratios"] else "–"
                for other in ("starlette", "bentoml")
            ]
            cells += [f"{load['p50_ms']:.2f}, {load['p99_ms']:.2f}" if load else "–"]
            cells += [f"{row['ready_s']:.1f}" if "ready_s" in row else "–"]
            lines.append(" | ".join(cells))
        lines.append("")
    lines += ["aimed at | measured | met", "---|---:|---"]
    lines += [goal_line(goal) for goal in measured["goals"]]
    return "\n".join(f"| {line} |" if line else "" for line in lines).strip()


def soak_table() -> str:
    """Return metrics/soak.json as one row."""
    path = ROOT / "metrics" / "soak.json"
    if not path.is_file():
        return ""
    found = json.loads(path.read_text(encoding="utf-8"))
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


def timers_table() -> str:
    """Return metrics/timers.json as a row a server."""
    path = ROOT / "metrics" / "timers.json"
    if not path.is_file():
        return ""
    measured = json.loads(path.read_text(encoding="utf-8"))
    head = f"{measured['requests']:,} requests at {measured['rate']:,.0f} a second"
    lines = [
        f"{head} | p50 ms | p99 | p99.9 | max | later than 100 ms | memory grew, MiB",
        "---|---:|---:|---:|---:|---:|---:",
    ]
    for name, row in measured["servers"].items():
        cells = [f"{row[each]:.2f}" for each in ("p50_ms", "p99_ms", "p99.9_ms", "p100_ms")]
        lines.append(" | ".join([name, *cells, f"{row['later_than_100_ms']:.2%}", f"{row['grown_mb']:.0f}"]))
    return "\n".join(f"| {line} |" for line in lines)


def memory_table() -> str:
    """Return metrics/memory.json as a row a step: the peak over the model's bytes, a column a size."""
    path = ROOT / "metrics" / "memory.json"
    if not path.is_file():
        return ""
    measured = json.loads(path.read_text(encoding="utf-8"))
    rows, goal = measured["steps"], measured["goal"]
    known = {size: own for sizes in rows.values() for size, own in sizes.items()}
    sizes = sorted(known, key=lambda size: known[size]["model"])
    head = [f"{known[size]['params'] / 1e6:.0f}M, {known[size]['model'] / 2**20:,.0f} MiB" for size in sizes]
    lines = [" | ".join(["peak over the model", *head, f"≤ {goal}×"]), "|".join(["---", *["---:"] * len(head), "---"])]
    for step, own in rows.items():
        cells = [f"{own[size]['ratio']:.2f}×" if size in own else "" for size in sizes]
        met = "yes" if all(each["ratio"] <= goal for each in own.values()) else "no"
        lines.append(" | ".join([step, *cells, met]))
    return "\n".join(f"| {line} |" for line in lines)


def training_loop_table() -> str:
    """Return metrics/training_loop.json as a row a network."""
    path = ROOT / "metrics" / "training_loop.json"
    if not path.is_file():
        return ""
    measured = json.loads(path.read_text(encoding="utf-8"))
    shape = f"{measured['rows']:,} rows, batch {measured['batch_size']}, {measured['rounds']} rounds"
    lines = [f"{shape} | fit, ms a step | by hand | ratio | goal ≤ {measured['goal']}", "---|---:|---:|---:|---"]
    for name, row in measured["models"].items():
        low, high = row["ratio_ci"]
        met = "met" if row["ratio"] <= measured["goal"] else "missed"
        met += "" if high <= measured["goal"] or met == "missed" else ", its interval isn't within"
        ratio = f"{row['ratio']:.3f} [{low:.3f}, {high:.3f}]"
        lines.append(f"{name} | {row['fit_ms']:.1f} | {row['by_hand_ms']:.1f} | {ratio} | {met}")
    return "\n".join(f"| {line} |" for line in lines)


def own_data_table() -> str:
    """Return metrics/own_data.json as a row a size."""
    path = ROOT / "metrics" / "own_data.json"
    if not path.is_file():
        return ""
    lines = [
        "data | rows | file, MiB | anonymous memory, MiB | peak, MiB | bytes a row more | s",
        "---|" + "---:|" * 5 + "---:",
    ]
    for name, kind in json.loads(path.read_text(encoding="utf-8"))["kinds"].items():
        for at, row in enumerate(kind["sizes"]):
            slope = f"{kind['bytes_a_row']:,}" if at else ""
            cells = [
                name,
                f"{row['given']:,}",
                row["file_mb"],
                row["anonymous_mb"],
                row["peak_mb"],
                slope,
                row["seconds"],
            ]
            lines.append(" | ".join(map(str, cells)))
    return "\n".join(f"| {line} |" for line in lines)


def peers_tables() -> str:
    """Return metrics/peers.json as two tables a workload: what each tool made of the teacher, and what was aimed at."""
    lines: list[str] = []
    for name, workload in json.loads((ROOT / "metrics" / "peers.json").read_text())["workloads"].items():
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
        if goals := workload.get("goals"):
            lines += ["", f"{name}: {workload['ours']} | " + " | ".join([*places, "met"])]
            lines += ["|".join(["---", *["---"] * len(places), "---"])]
            lines += [peer_goal(goal, places) for goal in goals]
    return "\n".join(f"| {line} |" if line else "" for line in lines).strip()


def peer_goal(goal: dict[str, Any], places: list[str]) -> str:
    """Return one goal of metrics/peers.json as cells: measured at each place, with what, and missed by how much."""
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


def times(bounds: list[float]) -> str:
    """Return [low, middle, high] as text."""
    low, middle, high = bounds
    return f"{middle:.2f}× [{low:.2f}, {high:.2f}]"


def goal_line(goal: dict[str, Any]) -> str:
    """Return one goal of metrics/serving.json as cells."""
    if goal["met"] is None:
        measured, met = "not measured", "–"
    elif goal["what"] == "ready_s":
        least, median, most = goal["ready_s"]
        measured, met = f"{median:.1f} s, {least:.1f} to {most:.1f}", "yes" if goal["met"] else "no"
    else:
        measured, met = times(goal["ratio"]), _within(goal)
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


def speed_table() -> str:
    """Return metrics/monitor-speed.json as one row."""
    path = ROOT / "metrics" / "monitor-speed.json"
    if not path.is_file():
        return ""
    found = json.loads(path.read_text(encoding="utf-8"))
    memory = found["memory_mb"]
    cells = [
        f"{found['events']:,}", f"{found['events_per_second']:,}", f"{memory['settled']:.0f} → {memory['end']:.0f}",
        f"{found['memory_mb_per_million_events']:+.1f}", f"{found['restart_seconds']:.1f}",
    ]  # fmt: skip
    head = "events | a second | resident MB, after a fifth → all | MB per million | s from start to the first read"
    lines = [f"| {line} |" for line in (head, "|".join(["---:"] * 5), " | ".join(cells))]
    return "\n".join([*lines, *of_another_release([found])])


def of_another_release(measured: list[dict[str, Any]]) -> list[str]:
    """Return the caption that a table needs whose numbers are of other releases than dvc.lock's."""
    stages = yaml.safe_load((ROOT / provenance.LOCK).read_text(encoding="utf-8"))["stages"]
    locked = {out["md5"] for out in stages["release"]["outs"]}
    others = [each.get("release", {}) for each in measured if each.get("release", {}).get("dvc") not in locked]
    unknown = "one that wasn't recorded, with floors measured on the rows that were sent"  # until releases were named
    names = sorted({str(each.get("revision", unknown)) for each in others})
    return ["", f"Measured on another release than dvc.lock's: {', '.join(names)}."] if names else []


def regressions_table() -> str:
    """Return metrics/regressions.json as a markdown table, a line a scenario; of several runs the worst is shown."""
    path = ROOT / "metrics" / "regressions.json"
    if not path.is_file():
        return ""
    runs = list(json.loads(path.read_text(encoding="utf-8"))["runs"].values())
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
    return "\n".join([*(f"| {line} |" for line in lines), *of_another_release(runs)])


def simulated_tables() -> str:
    """Return what metrics/monitoring.json says of simulated streams, as one table of delays and one of run lengths."""
    path = ROOT / "metrics" / "monitoring.json"
    found = json.loads(path.read_text(encoding="utf-8")).get("simulated", {}) if path.is_file() else {}
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
    return "\n".join([*(f"| {line} |" if line else "" for line in lines), *of_another_release([found])])


def blame_table() -> str:
    """Return blame's confusion matrix from metrics/monitoring.json: a line a planted fault, a column a verdict."""
    path = ROOT / "metrics" / "monitoring.json"
    found = json.loads(path.read_text(encoding="utf-8")).get("blame", {}) if path.is_file() else {}
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
    return "\n".join([*(f"| {line} |" for line in lines), *of_another_release([found])])


def marks(name: str) -> tuple[str, str]:
    """Return the comments between which a table stands."""
    return f"<!-- {name}: begin -->", f"<!-- {name}: end -->"


def table_of(page: Path, name: str) -> str:
    """Return what stands between the marks."""
    begin, end = marks(name)
    return page.read_text(encoding="utf-8").partition(begin)[2].partition(end)[0].strip()


def write_table(page: Path, name: str, table: str) -> None:
    """Put a table between a page's marks."""
    begin, end = marks(name)
    before, mark, rest = page.read_text(encoding="utf-8").partition(begin)
    if not mark:
        return
    page.write_text(f"{before}{begin}\n{table}\n{end}{rest.partition(end)[2]}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main() > 0)
