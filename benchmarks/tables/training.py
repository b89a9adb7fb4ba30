"""What training, compressing, preparing data and an int8 chain cost, and attention in integers: as markdown tables."""

from __future__ import annotations

from pathlib import Path

from int8_time import STAGES
from tables.measured import read


def memory(root: Path) -> str:
    """Return metrics/memory.json as a row a step: the peak over the model's bytes, a column a size."""
    measured = read(root, "memory")
    if not measured:
        return ""
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


def attention(root: Path) -> str:
    """Return metrics/attention.json as a row a length: milliseconds in floats, then the speed-up of each kernel."""
    measured = read(root, "attention")
    if not measured:
        return ""
    places, kernels = measured["places"], list(measured["operators"])
    head = [f"{place}: floats, ms; {'; '.join(kernels)}" for place in places]
    lines = [" | ".join(["tokens", *head]), "|".join(["---:"] * (len(head) + 1))]
    for length in sorted({each for rows in places.values() for each in rows}, key=int):
        cells = []
        for row in (rows.get(length) for rows in places.values()):
            ratios = [
                "{:.2f}× [{:.2f}, {:.2f}]".format(row["speedup"][each], *row["speedup_ci"][each])
                for each in kernels
                if row
            ]
            cells.append("; ".join([f"{row['ms']['floats']:.1f}", *ratios]) if row else "")
        lines.append(" | ".join([length, *cells]))
    return "\n".join(f"| {line} |" for line in lines)


def training_loop(root: Path) -> str:
    """Return metrics/training_loop.json as a row a network."""
    measured = read(root, "training_loop")
    if not measured:
        return ""
    shape = f"{measured['rows']:,} rows, batch {measured['batch_size']}, {measured['rounds']} rounds"
    lines = [f"{shape} | fit, ms a step | by hand | ratio | goal ≤ {measured['goal']}", "---|---:|---:|---:|---"]
    for name, row in measured["models"].items():
        low, high = row["ratio_ci"]
        met = "met" if row["ratio"] <= measured["goal"] else "missed"
        met += "" if high <= measured["goal"] or met == "missed" else ", its interval isn't within"
        ratio = f"{row['ratio']:.3f} [{low:.3f}, {high:.3f}]"
        lines.append(f"{name} | {row['fit_ms']:.1f} | {row['by_hand_ms']:.1f} | {ratio} | {met}")
    return "\n".join(f"| {line} |" for line in lines)


def training_formats(root: Path) -> str:
    """Return metrics/training_formats.json as a row a network: its speed-up by each format."""
    measured = read(root, "training_formats")
    if not measured:
        return ""
    plain = "float32"
    formats = sorted({each for rows in measured["models"].values() for each in rows} - {plain})
    lines = [" | ".join(["a step", f"{plain}, ms", *formats]), "|".join(["---", *["---:"] * (len(formats) + 1)])]
    for name, rows in measured["models"].items():
        ratios = [
            "{:.2f}× [{:.2f}, {:.2f}]".format(row["speedup"], *row["speedup_ci"]) if (row := rows.get(each)) else ""
            for each in formats
        ]
        lines.append(" | ".join([name, f"{rows[plain]['step_ms']:,.0f}", *ratios]))
    return "\n".join(f"| {line} |" for line in lines)


def own_data(root: Path) -> str:
    """Return metrics/own_data.json as a row a size."""
    measured = read(root, "own_data")
    if not measured:
        return ""
    lines = [
        "data | rows | file, MiB | anonymous memory, MiB | peak, MiB | bytes a row more | s",
        "---|" + "---:|" * 5 + "---:",
    ]
    for name, kind in measured["kinds"].items():
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


def int8(root: Path) -> str:
    """Return metrics/int8.json as a row a stage, and what has passed until report and release."""
    measured = read(root, "int8")
    if not measured:
        return ""
    seconds, goal, cores = measured["seconds"], measured["goal_s"], measured["machine"]["cores"]
    lines = [f"{measured['rows']:,} rows, {cores} cores | s | goal", "---|---:|---"]
    lines += [f"{each} | {took:,.0f} | " for each in STAGES if (took := measured["stages"].get(each)) is not None]
    lines += [
        f"until the {name}, `slimline init` and DVC included | {took:,.0f} | "
        f"≤ {goal}: {'met' if took <= goal else 'missed'}"
        for name, took in sorted(seconds.items(), key=lambda each: each[1])
    ]
    before, after = measured["load"]
    lines.append(f"processor time of all that, on every core | {measured['processor_seconds']:,.0f} | ")
    lines.append(f"the machine's load, others' work included, before and after | {before}, {after} | ")
    return "\n".join(f"| {line} |" for line in lines)
