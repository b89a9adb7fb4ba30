"""The report's tables and sentences as data; both templates lay out the same ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from slimline import gate
from slimline.pipeline import ROOT
from slimline.report import numbers
from slimline.report.numbers import Metric
from slimline.report.study import Step, Study


@dataclass(frozen=True)
class Cell:
    """``note`` is what qualifies the text: an interval, a p95, a factor. ``mark`` warns of it: a word."""

    text: str
    note: str = ""
    mark: str = ""


NONE = Cell("–")


@dataclass(frozen=True)
class Table:
    """``rows``: a title and one cell for each column of ``head`` after the first."""

    head: list[str]
    rows: list[tuple[str, list[Cell]]]


@dataclass(frozen=True)
class Tile:
    """One number of the headline."""

    title: str
    value: str
    unit: str
    notes: list[str]


@dataclass(frozen=True)
class Reason:
    """Why one method of a stage did little: its own summary and what it says of each layer."""

    method: str
    summary: str
    layers: list[str]


@dataclass(frozen=True)
class Statement:
    """What one stage gained and cost, in words. ``little``: it saves less than a tenth, and ``reasons`` say why."""

    stage: str
    text: str
    little: str = ""
    reasons: list[Reason] = field(default_factory=list)


def tiles(study: Study) -> list[Tile]:
    """Return the headline: the last stage against the teacher."""
    metric, own, teacher = study.primary, study.row(study.last), study.row(ROOT)
    drop = own["drops"][metric.name]["drop"]
    value, _, unit = metric.drop(drop).partition(" ")
    before, after = metric.value(teacher[metric.name]), metric.value(own[metric.name])
    interval = f"{study.confidence} interval"
    smaller = numbers.ratio(teacher["bytes"] / own["bytes"])
    sizes = f"{numbers.count(teacher['bytes'], 'B')} → {numbers.count(own['bytes'], 'B')}"
    shown = [
        Tile(
            metric.title if metric.gains(drop) else f"{metric.title} {metric.loss}",
            value,
            unit,
            [f"{interval} {metric.drops(drop, own['drop_ci'])}", f"{before} → {after}"],
        ),
        Tile("times smaller", smaller, "", [sizes]),
    ]
    for batch in study.batches:
        faster, bounds = numbers.ratio(own["speedup"][batch]), numbers.ratios(own["speedup_ci"][batch])
        medians = " → ".join(numbers.milliseconds(study.p50(stage, batch)) for stage in (ROOT, study.last))
        shown.append(Tile(f"times faster, batch {batch}", faster, "", [f"{interval} {bounds}", medians]))
    return shown


def verdict(study: Study) -> list[tuple[bool, str, bool]]:
    """Return whether each line of the budget is kept, its text, and whether it is over, not only open."""
    texts = [line.split(maxsplit=1)[1] for line in gate.lines(study.checks)]
    checks = zip(study.checks, texts, strict=True)
    return [(check.ok, text, not (check.ok or check.is_open or check.kind == "teacher")) for check, text in checks]


def stages(study: Study) -> Table:
    """Return every number by stage: quantities down, stages across."""
    rows = {stage: study.row(stage) for stage in study.line}
    each = list(rows.values())
    table = [("variant", [Cell(row["variant"], _plural(row["threads"], "thread")) for row in each])]
    for name in [study.primary.name, *(name for name in rows[ROOT]["drops"] if name != study.primary.name)]:
        metric = study.metric(name)
        table.append((metric.title, [_value(metric, row) for row in each]))
        table.append((f"{metric.title} {metric.loss}", [_drop(metric, row, stage) for stage, row in rows.items()]))
    table.append(("agreement with the teacher", [_agreement(study, row, stage) for stage, row in rows.items()]))
    table.append(("parameters", [Cell(numbers.count(row["params"])) for row in each]))
    table.append(("multiply-adds (MACs)", [Cell(numbers.count(row["macs"])) for row in each]))
    table += _stored(rows)
    table.append(("model file", [_size(row, rows[ROOT], stage) for stage, row in rows.items()]))
    table += [
        (f"latency p50, batch {batch}", [_latency(row["latency_ms"][batch]) for row in each]) for batch in study.batches
    ]
    table += [
        (f"speed-up, batch {batch}", [_speedup(row, batch, stage) for stage, row in rows.items()])
        for batch in study.batches
    ]
    table.append(("peak memory", [Cell(f"{row['peak_rss_mb']:,.0f} MiB") for row in each]))
    return Table(["", *rows], table)


def _stored(rows: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, list[Cell]]]:
    """Return the rows on zeros and widths; benchmarks of older exports don't have them."""
    each = list(rows.values())
    if not all("sparsity" in row and "bits" in row for row in each):
        return []
    return [
        ("zero weights", [Cell(numbers.percent(row["sparsity"])) for row in each]),
        ("bits of weights", [_bits(row["bits"]["weights"], "of weights") for row in each]),
        ("bits of inputs", [_bits(row["bits"]["activations"], "of layers") for row in each]),
    ]


def _bits(counts: Mapping[str, int], of: str) -> Cell:
    """Return the commonest width, the others in the note."""
    if not counts:
        return NONE
    most, *others = sorted(counts, key=lambda bits: (-counts[bits], int(bits)))
    total = sum(counts.values())
    return Cell(most, ", ".join(f"{bits}: {numbers.percent(counts[bits] / total)} {of}" for bits in others))


def _value(metric: Metric, row: Mapping[str, Any]) -> Cell:
    ci = row.get(f"{metric.name}_ci")
    return Cell(metric.value(row[metric.name]), metric.interval(ci) if ci else "")


def _drop(metric: Metric, row: Mapping[str, Any], stage: str) -> Cell:
    if stage == ROOT:
        return NONE
    drop = row["drops"][metric.name]
    return Cell(metric.drop(drop["drop"]), metric.drops(drop["drop"], drop["ci"]))


def _agreement(study: Study, row: Mapping[str, Any], stage: str) -> Cell:
    if stage == ROOT:
        return NONE
    share = Metric("agreement", higher_is_better=True, score=True, decimals=study.primary.decimals)
    return Cell(share.value(row["agreement"]), share.interval(row["agreement_ci"]))


def _size(row: Mapping[str, Any], teacher: Mapping[str, Any], stage: str) -> Cell:
    smaller = f"{numbers.ratio(teacher['bytes'] / row['bytes'])} smaller"
    return Cell(numbers.count(row["bytes"], "B"), "" if stage == ROOT else smaller)


def _latency(percentiles: Mapping[str, float]) -> Cell:
    return Cell(numbers.milliseconds(percentiles["p50"]), f"p95 {numbers.milliseconds(percentiles['p95'])}")


def _speedup(row: Mapping[str, Any], batch: str, stage: str) -> Cell:
    if stage == ROOT:
        return NONE
    return Cell(numbers.ratio(row["speedup"][batch]), numbers.ratios(row["speedup_ci"][batch]))


def statements(study: Study) -> list[Statement]:
    """Return what each stage after the first gained and cost against the stage before it."""
    return [_statement(study, step) for step in study.steps]


def _statement(study: Study, step: Step) -> Statement:
    before, after = step.size
    parts = [f"{numbers.percent_change(after, before)} bytes"]
    for batch in study.outer_batches:
        old, new = step.latency[batch]
        parts.append(f"{numbers.percent_change(new, old)} latency at batch {batch}")
    text = ", ".join([*parts, study.primary.change(step.quality)])
    if step.through:
        text += f" (together with {' and '.join(step.through)}, not exported)"
    if not step.gains_little:
        return Statement(step.stage, text)
    reasons = [
        Reason(
            method, choice.get("summary", ""), [f"{_layer(name)}: {layer['why']}" for name, layer in _layers(choice)]
        )
        for stage in [*step.through, step.stage]
        for method, choice in study.decisions.get(stage, {}).items()
    ]
    little = f"{step.stage} saves less than 10% against {step.before}, in bytes and in latency at every batch size"
    little += ". Its record of measured choices says why:" if reasons else "; it records no choice that says why."
    return Statement(step.stage, text, little, reasons)


def _layers(choice: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return [(name, layer) for name, layer in choice.get("layers", {}).items() if layer.get("why")]


def _layer(name: str) -> str:
    return f"layer {name}" if name.isdecimal() else name


def stage_times(study: Study) -> Table:
    """Return how long each stage took here, and the sum."""
    rows = []
    for name, record in study.times.items():
        when = record["when"][:16].replace("T", " ") + " UTC" if record else ""
        rows.append((name, [Cell(numbers.duration(record["seconds"]), when) if record else Cell("not run here")]))
    known = [record["seconds"] for record in study.times.values() if record]
    title = "total" if len(known) == len(rows) else f"total of the {len(known)} run here"
    return Table(["stage", "took"], [*rows, (title, [Cell(numbers.duration(sum(known)))])])


def machine(study: Study) -> Table:
    """Return where this was measured and with what."""
    from slimline import __version__

    facts, target, rows = study.measured["machine"], study.measured["target"], study.measured["rows"]
    shown = {
        "processor": f"{facts['processor']}, {_plural(facts['cores'], 'core')}",
        "instructions": ", ".join(facts["instructions"]) or "none of those that int8 gains from",
        "system": facts["system"],
        "target": f"{target['runtime']}, {_plural(target['threads'], 'thread')}, batches of {', '.join(study.batches)}",
        "versions": f"slimline {__version__}, python {facts['python']}, onnxruntime {facts['onnxruntime']}",
        "rows": f"{rows['test']:,} test, {rows['validation']:,} validation",
        "seed": str(study.params.seed),
    }
    return Table(["", ""], [(key, [Cell(value)]) for key, value in shown.items()])


def digests(study: Study) -> Table:
    """Return what each export was made from and how closely it answers like the model in torch."""
    rows = []
    for stage in study.line:
        facts = study.facts[stage]
        parity = facts["parity"]
        agrees = f"{100 * parity['agreement']:.4g}% of {parity['rows']:,} rows"
        rows.append((stage, [Cell(facts["artifact"]), Cell(", ".join(facts["edits"]) or "none"), Cell(agrees)]))
    return Table(["stage", "artifact", "edits", "agrees with torch on"], rows)


def formats(study: Study) -> Table | None:
    """Return what each export holds beside model.onnx, or None where no stage has other formats."""
    rows = []
    for stage in study.line:
        for name, written in study.facts[stage].get("formats", {}).items():
            checked = written.get("validation")
            quality = NONE
            if checked:
                drop, gains = study.primary.drop(checked["drop"]), study.primary.gains(checked["drop"])
                note = f"{'' if gains else f'{study.primary.loss} '}{drop} on {checked['rows']:,} rows"
                quality = Cell(study.primary.value(checked[study.primary.name]), note)
            status = "answers checked by ONNX Runtime"
            if written["status"] == "built":
                compute = ", ".join(f"SM{each}" for each in written["compute"])
                ran = study.engine(stage)
                done = (
                    f"run, {ran['speedup'][min(ran['speedup'], key=int)]:.1f}× the teacher's"
                    if ran
                    else "built, not run"
                )
                status = f"{done}: {written['library']} for {compute}"
            rows.append((f"{stage}: {name}", [Cell(numbers.count(written["bytes"], "B")), quality, Cell(status)]))
    head = ["stage: format", "size", f"{study.primary.title} on validation", "status"]
    return Table(head, rows) if rows else None


def baselines(study: Study) -> Table | None:
    """Return what simpler models reach on the same test rows, beside teacher and last stage; None without any."""
    simpler = study.measured.get("baselines") or {}
    smallest, metric = study.batches[0], study.primary
    measured = study.measured["stages"]
    lines = [(each, measured[each], measured[each]["latency_ms"][smallest]["p50"]) for each in (ROOT, study.last)]
    lines += [(name, own, own["latency_ms"]) for name, own in simpler.items()]
    rows = [
        (
            name,
            [
                Cell(metric.value(own[metric.name])),
                Cell(numbers.count(own["bytes"], "B")),
                Cell(numbers.milliseconds(latency)),
            ],
        )
        for name, own, latency in lines
    ]
    return Table(["model", metric.title, "size", f"latency, batch {smallest}"], rows) if simpler else None


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
