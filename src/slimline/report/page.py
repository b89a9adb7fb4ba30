"""The report as files: ``index.html``, one page that needs nothing else, and ``report.md`` with ``tradeoff.png``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from slimline import manifest
from slimline.pipeline import ROOT
from slimline.report import distributions, harm, layers, plots, tables
from slimline.report.study import Study

FOLDER = Path("report")
COMMANDS = "slimline check && dvc repro report release\n\n# the verdict above, as an exit code\nslimline gate"


def write(study: Study, target: Path = FOLDER) -> None:
    """Write the three files of the report into ``target``."""
    pages = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=select_autoescape(("html.j2",)),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    filled = content(study)
    manifest.write_text(target / "index.html", pages.get_template("page.html.j2").render(filled))
    manifest.write_text(target / "report.md", pages.get_template("page.md.j2").render(filled))
    (target / "tradeoff.png").write_bytes(plots.tradeoff_png(study))


def content(study: Study) -> dict[str, Any]:
    """Return what the templates lay out."""
    model, task = study.params.teacher.model, study.measured["task"]
    compressed = study.last != ROOT
    verdict = tables.verdict(study) if compressed else []
    passed = all(ok for ok, _, _ in verdict)
    tradeoffs = plots.tradeoffs(study)
    return {
        "title": f"{model.name} on {task}, compressed" if compressed else f"{model.name} on {task}",
        "lead": _lead(study),
        "used": ", ".join(f"{used:,} of {count:,} {name} rows" for name, (used, count) in study.left_out.items()),
        "at_chance": study.at_chance,
        "busy": _busy(study),
        "tiles": tables.tiles(study) if compressed else [],
        "verdict": verdict,
        "passed": passed,
        "summary": _summary(study, passed=passed) if verdict else "params.yaml sets no budget, so there is no verdict.",
        "bad_end": f"Each line is judged on the bad end of its {study.confidence} interval.",
        "statements": tables.statements(study),
        "waterfalls": plots.waterfalls(study) if compressed else [],
        "tradeoffs": tradeoffs,
        "tradeoff_alt": ". ".join(each.alt for each in tradeoffs),
        "stages": tables.stages(study),
        "baselines": tables.baselines(study),
        "per_class": harm.plot(study),
        "class_table": harm.table(study),
        "layer_chain": layers.chain(study),
        "stage_layers": layers.of_stages(study),
        "galleries": distributions.galleries(study),
        "curves": plots.curves(study),
        "times": tables.stage_times(study),
        "machine": tables.machine(study),
        "formats": tables.formats(study),
        "digests": tables.digests(study),
        "commands": COMMANDS,
        "notes": _notes(study),
    }


def _lead(study: Study) -> str:
    model = study.params.teacher.model
    args = ", ".join(f"{key} {value}" for key, value in model.args.items())
    made = " → ".join(study.line)
    return f"{made}. Teacher: {model.name}" + (f" ({args})." if args else ".")


def _busy(study: Study) -> str:
    """Return what to say of a machine that others used while speed was measured."""
    if not study.spread:
        return ""
    return (
        f"The machine was busy while speed was measured: one speed-up is known to a factor of {study.spread:.2f} only."
    )


def _summary(study: Study, *, passed: bool) -> str:
    if study.at_chance:
        return f"{study.last} fails: the teacher is {study.at_chance['what']}"
    if not passed and all(check.ok or check.is_open for check in study.checks):
        return f"{study.last} keeps the budget, but its intervals are too wide to tell"
    return f"{study.last} is within budget" if passed else f"{study.last} is over budget"


def _notes(study: Study) -> dict[str, str]:
    title, confidence = study.primary.title, study.confidence
    minds = " Minds most: what cost most of all that was tried on this layer alone." if study.sensitivity else ""
    return {
        "waterfall": f"Each bar runs from the stage before to the stage named; bytes and latency on log axes. "
        f"A step of {title} has no interval of its own: the table has the intervals against the teacher.",
        "tradeoff": f"Stages joined in chain order. Vertical bars: {confidence} interval of the paired difference "
        f"from the teacher on the same test rows. Horizontal bars: interval of the speed-up. "
        "Dashed: the budget, where it lies inside the picture.",
        "stages": f"Small print: {confidence} intervals, p95, and factors against the teacher. Drops and agreement are "
        "paired, on the same test rows; all latencies were measured interleaved in one run.",
        "baselines": "Without a neural network, fitted on the same training rows: where this is as good, a larger "
        "model isn't worth its time. Its latency was measured alone, not interleaved, from raw input on.",
        "per_class": f"Each stage against the teacher on the same test rows, {confidence} interval of the paired "
        f"difference, the classes that {study.last} costs most first"
        + (f", the {harm.MOST_CLASSES} worst." if harm.classes(study) > harm.MOST_CLASSES else ".")
        + " An interval that misses zero is coloured; of many, some do by chance. Harmed (a full dot): the loss stands "
        "by McNemar's exact test with Holm's correction for all classes of the stage.",
        "layers": "What each stage did to each layer, by the layer's name; the small print says why, where a method "
        "recorded it or params.yaml skips the layer.",
        "stage_layers": "Bytes are those in model.onnx. Zeros are counted among the weights as stored, so rounding "
        "makes some. SQNR: how far the layer's output lies from that of the same layer without quantizers, on the same "
        "input (validation rows), 10·log₁₀(signal/error); errors of layers before it aren't in it. Clipped: input "
        f"values outside the quantizer's range.{minds}",
        "galleries": "Counts on a log axis (a line a decade). Weights as stored, and inputs before rounding.",
        "outline": "in the stage before; of newly quantized weights: before rounding",
        "formats": "Made from the same model and quantizers for other runtimes; ONNX Runtime answered with them to "
        "measure their quality again. An engine built on a machine without its GPU is not run and has no latency.",
        "times": "Wall-clock time of each stage's last run on this machine, as DVC or the script alone ran it.",
        "reproduce": "The same params.yaml and code give the same artifacts: choices made by measurement are replayed "
        "from decisions/. Latency is measured anew.",
    }
