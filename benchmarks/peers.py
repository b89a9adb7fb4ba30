"""What other tools make of a workload's teacher, beside what Slimline made of it: the same rows, threads and clock.

``make bench`` takes the workloads that ``make example-NAME`` has run, lets each tool compress the teacher's export
there, and measures all variants on the test split and, interleaved, on the clock: batch 1 and 8, one and two threads,
rows of the data's own lengths. metrics/peers.json holds {workload: {variant: numbers}}, docs/check.py --write puts the
tables into docs/benchmarks.md, docs/peers.png shows accuracy against speed.

What a tool made lies in the project's .slimline/peers and isn't made again. OpenVINO is shown in float32 and as it is
by itself on this CPU, in bfloat16.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import method_peers
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from tqdm import tqdm

from slimline import benchmark, latency, manifest, params, plugins
from slimline.pipeline import ROOT
from slimline.predictor import Arrays
from slimline.report import picture
from slimline.report.picture import GAIN, INK, MUTED, Draw
from slimline.stage import Stage, _fix_randomness

OUT = Path("metrics/peers.json")
PICTURE = Path("docs/peers.png")
EXAMPLES = Path(".slimline/examples")
MADE = Path(".slimline/peers")
ARTIFACTS = Path("artifacts")
EXPORTS = Path("exports")
BATCH_SIZES, THREADS = (1, 8), (1, 2)
ROUNDS, REPEATS = 11, 8
ROWS = 200  # a call, where only answers count
CONFIDENCE = 0.95
ORT, OV, OV16 = "onnxruntime", "openvino", "openvino-bf16"
PACKAGES = ("onnxruntime", "openvino", "nncf", "torch", "torch-pruning", "transformers", "slimline", "olive-ai")


@dataclass(frozen=True)
class Variant:
    """An export on a runtime; ``tool`` is whose work it is."""

    name: str
    tool: str
    export: Path
    runtime: str


@contextmanager
def inside(project: Path) -> Iterator[None]:
    """Work in a workload's project."""
    here = Path.cwd()
    os.chdir(project)
    try:
        yield
    finally:
        os.chdir(here)


def variants(stage: Stage, runtime_of: Mapping[str, str]) -> Iterator[Variant]:
    """Yield the teacher, what each tool makes of it, and Slimline's own stages; the tools that are missing are said."""
    teacher = EXPORTS / ROOT
    yield Variant("fp32 in ONNX Runtime", ORT, teacher, ORT)
    yield Variant("fp32 in OpenVINO", OV, teacher, OV)
    yield Variant("bf16 in OpenVINO", OV, teacher, OV16)
    yield Variant("dynamic int8 in ONNX Runtime", ORT, made(stage, teacher, _dynamic), ORT)
    yield Variant("static int8 in ONNX Runtime", ORT, made(stage, teacher, _static), ORT)
    nncf = made(stage, teacher, _nncf)
    yield Variant("NNCF int8 in OpenVINO", "nncf", nncf, OV)
    yield Variant("NNCF int8 in OpenVINO, rest bf16", "nncf", nncf, OV16)
    if find_spec("olive"):
        yield Variant("Olive int8 in ONNX Runtime", "olive", made(stage, teacher, _olive), ORT)
    if (EXPORTS / "distill").is_dir():
        student = made(stage, EXPORTS / "distill", _dynamic)
        yield Variant("layer-dropped student, dynamic int8", ORT, student, ORT)
    for name in stage.params.export.stages:
        if name != ROOT:
            yield Variant(f"Slimline: {name}", "slimline", EXPORTS / name, runtime_of[name])


def _dynamic(stage: Stage, source: Path, target: Path) -> None:
    method_peers.onnxruntime_quantized(stage, source / "model.onnx", target / "model.onnx")


def _static(stage: Stage, source: Path, target: Path) -> None:
    method_peers.onnxruntime_quantized(stage, source / "model.onnx", target / "model.onnx", "MinMax")


def _nncf(stage: Stage, source: Path, target: Path) -> None:
    """Quantize as NNCF's documentation says for OpenVINO, with its settings for transformers where it is one."""
    os.environ.setdefault("NNCF_CI", "1")  # it then sends no usage data
    import nncf
    import openvino

    rows = list(method_peers.feeds(stage.splits["calibration"], 1))
    kind = nncf.ModelType.TRANSFORMER if stage.params.task.name == "text" else None
    model = openvino.Core().read_model(source / "model.onnx")
    quantized = nncf.quantize(model, nncf.Dataset(rows), model_type=kind, subset_size=len(rows))
    openvino.save_model(quantized, target / "model.xml", compress_to_fp16=False)


def _olive(stage: Stage, source: Path, target: Path) -> None:
    import olive_workflow

    if stage.params.task.name == "text":
        shape = manifest.read_json(ARTIFACTS / source.name / "assets" / "config.json")
        heads, hidden = shape["num_attention_heads"], shape["hidden_size"]
        olive_workflow.encoder(source / "model.onnx", target / "model.onnx", heads, hidden)
    else:
        rows = dict(stage.splits["calibration"].inputs)
        olive_workflow.static(source / "model.onnx", target / "model.onnx", rows)


def made(stage: Stage, source: Path, make: Callable[[Stage, Path, Path], None]) -> Path:
    """Return the folder of what ``make`` does to an export, done before or now."""
    name = make.__name__.strip("_")
    known = [manifest.digest(source), stage.limit, _versions()]
    folder = MADE / f"{name}-{hashlib.sha256(manifest.canonical(known)).hexdigest()[:16]}"
    if not folder.is_dir():
        print(f"{source.name}: {name}", flush=True)
        with manifest.sealed(folder) as scratch, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for kept in ("signature.json", "preprocess.json"):
                shutil.copy(source / kept, scratch / kept)
            make(stage, source, scratch)
    return folder


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


class Running:
    """A variant on its runtime."""

    def __init__(self, variant: Variant, threads: int) -> None:
        file = next(each for each in ("model.onnx", "model.xml") if (variant.export / each).is_file())
        self._runtime = plugins.find("runtimes", variant.runtime)(variant.export, threads, file=file)
        self.run: Callable[[Arrays], Arrays] = self._runtime.run
        self.close: Callable[[], None] = self._runtime.close
        weights = [variant.export / file, (variant.export / file).with_suffix(".bin")]
        self.bytes = sum(path.stat().st_size for path in weights if path.is_file())

    def outputs(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """Return the first output for every row."""
        count = len(next(iter(inputs.values())))
        parts = [
            next(iter(self.run({name: array[at : at + ROWS] for name, array in inputs.items()}).values()))
            for at in range(0, count, ROWS)
        ]
        return np.concatenate(parts)


def measured(stage: Stage) -> dict[str, Any]:
    """Return {variant: quality, bytes, and by "bN/tM" latency, speed-up over fp32 in ONNX Runtime and its interval}."""
    stages = manifest.read_json(Path("metrics/latency.json"))["stages"]
    found = list(variants(stage, {name: row["runtime"] for name, row in stages.items()}))
    rows: dict[str, dict[str, Any]] = {}
    base, test = None, stage.splits["test"]
    for variant in found:
        running = Running(variant, max(THREADS))
        out = running.outputs(test.inputs)
        base = out if base is None else base
        quality = benchmark.quality(stage.task, test, base, out, CONFIDENCE)
        quality.pop("per_class", None)
        rows[variant.name] = {"tool": variant.tool, "runtime": variant.runtime, "bytes": running.bytes, **quality}
        rows[variant.name] |= {"latency_ms": {}, "speedup": {}, "speedup_ci": {}}
        running.close()
    for threads in THREADS:
        running_all = {variant.name: Running(variant, threads) for variant in found}
        inputs = latency.typical_batches(stage.splits["calibration"], BATCH_SIZES, REPEATS, stage.params.seed)
        with tqdm(total=ROUNDS, desc=f"{threads} threads", disable=None) as bar:
            samples = latency.measure(
                {name: each.run for name, each in running_all.items()}, inputs,
                rounds=ROUNDS, repeats=REPEATS, seed=stage.params.seed, progress=bar.update,
            )  # fmt: skip
        for name, table in latency.table(samples, found[0].name, CONFIDENCE).items():
            for batch in map(str, BATCH_SIZES):
                for key in ("latency_ms", "speedup", "speedup_ci"):
                    value = table[key][batch]
                    rows[name][key][f"b{batch}/t{threads}"] = value["p50"] if key == "latency_ms" else value
        for each in running_all.values():
            each.close()
    return rows


def panel(name: str, workload: Mapping[str, Any], place: str) -> Draw:
    """Return a drawing of the variants' speed-ups at one place, the slowest on top, with what share they get right."""
    rows = sorted(workload["variants"].items(), key=lambda each: -each[1]["speedup"][place])

    def draw(ax: Axes) -> None:
        batch, threads = place.removeprefix("b").split("/t")
        ax.set_title(f"{name}: batch {batch}, {threads} thread")
        for at, (variant, row) in enumerate(rows):
            speed, (low, high) = row["speedup"][place], row["speedup_ci"][place]
            ax.barh(at, speed, 0.42, color=GAIN if row["tool"] == "slimline" else MUTED)
            ax.plot([low, high], [at, at], color=INK, linewidth=1)
            ax.text(0, at + 0.27, f"{variant}, {row[workload['primary']]:.1%}", fontsize=8, va="bottom")
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)
        ax.set_xlabel("times as fast as fp32 in ONNX Runtime")

    return draw


def main() -> None:
    """Measure the workloads that were run, or those named, and write them beside the others' earlier numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = sorted(path.parent.parent.name for path in EXAMPLES.glob("*/metrics/latency.json"))
    parser.add_argument("workloads", nargs="*", default=known)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    if not options.workloads:
        sys.exit(f"{EXAMPLES}: no workload there; make example-topics runs one")
    document = manifest.read_json(options.out) if options.out.is_file() else {"format": 1, "workloads": {}}
    for name in options.workloads:
        with inside(EXAMPLES / name):
            settings = params.load()
            _fix_randomness(settings.seed)
            stage = Stage(ROOT, settings, settings.limit)
            rows = measured(stage)
            document["workloads"][name] = {
                "machine": benchmark.machine(), "versions": _versions(), "primary": stage.task.primary,
                "rows": len(stage.splits["test"]), "variants": rows,
            }  # fmt: skip
        for variant, row in rows.items():
            speeds = ", ".join(f"{place} {ratio:.2f}x" for place, ratio in row["speedup"].items())
            print(f"{name}: {variant}: {row[stage.task.primary]:.4f}, {row['bytes']:,} bytes, {speeds}")
        manifest.write_json(options.out, document)
    drawn = [panel(*each, place) for each in document["workloads"].items() for place in ("b1/t1", "b8/t1")]
    PICTURE.write_bytes(picture.png(5.2, drawn))


if __name__ == "__main__":
    main()
