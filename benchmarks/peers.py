"""What other tools make of a workload's teacher, beside what Slimline made of it: the same rows, threads and clock.

``make bench`` takes the workloads that ``make example-NAME`` has run (``make bench WORKLOADS=topics``: that one), lets
each tool compress the teacher's export there, and measures all variants on the test split and, interleaved, on the
clock: batch 1 and 8, one and two threads, rows of the data's own lengths. metrics/peers.json holds {workload: variants,
goals, the nearest peers beside ours row by row, what failed and why}, docs/check.py --write puts the tables into
docs/benchmarks.md, docs/peers.png shows accuracy against speed. Where a variant fails the others are measured.

The teacher and the last stage are measured on ``onnxruntime-rows`` too, whose threads share the rows of a batch; the
last stage there is the one whose goals are judged.

What a tool made lies in the project's .slimline/peers and isn't made again. A tool that trains does so for as many
epochs as the chain does in all its stages. OpenVINO is shown in float32 and, where this CPU has instructions for it, as
it is by itself, in bfloat16.
"""

from __future__ import annotations

import argparse
import hashlib
import inspect
import re
import shutil
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import channel_pruning
import numpy as np
import operators
import peer_goals
import post_training
from matplotlib.axes import Axes
from numpy.typing import NDArray

from slimline import benchmark, latency, manifest, params, plugins, progress, runtime_choice
from slimline.errors import SlimlineError
from slimline.latency import Measured
from slimline.pipeline import EXPORTS, ROOT
from slimline.predictor import Arrays
from slimline.report import picture
from slimline.report.picture import GAIN, INK, MUTED, Draw
from slimline.stage import Stage, fix_randomness

OUT = Path("metrics/peers.json")
PICTURE = Path("docs/peers.png")
EXAMPLES = Path(".slimline/examples")
MADE = Path(".slimline/peers")
BATCH_SIZES, THREADS = (1, 8), (1, 2)
ROUNDS, REPEATS = 11, 8
MOST_S = 900.0  # of measuring all variants on so many threads
ROWS = 200  # a call, where only answers count
CONFIDENCE = 0.95
PRUNED = (0.5, 0.75)  # shares of the multiply-adds that torch-pruning takes
BASE = "fp32 in ONNX Runtime"
SHARED = ", rows shared"
ORT, OV, OV16 = "onnxruntime", "openvino", "openvino-bf16"
PACKAGES = ("onnxruntime", "openvino", "nncf", "torch", "torch-pruning", "transformers", "slimline", "olive-ai")


@dataclass(frozen=True)
class Variant:
    """An export on a runtime; ``tool`` is whose work it is, ``make`` returns its folder."""

    name: str
    tool: str
    make: Callable[[], Path]
    runtime: str


def variants(stage: Stage, runtime_of: Mapping[str, str]) -> Iterator[Variant]:
    """Yield the teacher, what each tool makes of it, and Slimline's own stages."""
    teacher, student = EXPORTS / ROOT, EXPORTS / "distill"
    runtimes = {OV: ""} | ({OV16: ", rest bf16"} if "avx512_bf16" in benchmark.machine()["instructions"] else {})
    yield Variant(BASE, ORT, lambda: teacher, ORT)
    yield Variant(f"{BASE}{SHARED}", ORT, lambda: teacher, runtime_choice.BY_ROWS)
    for runtime in runtimes:
        yield Variant(f"{'fp32' if runtime == OV else 'bf16'} in OpenVINO", OV, lambda: teacher, runtime)
    yield Variant("dynamic int8 in ONNX Runtime", ORT, partial(made, stage, teacher, post_training.dynamic), ORT)
    for calibrator, said in (("MinMax", ""), ("Percentile", ", percentile")):
        make = partial(made, stage, teacher, post_training.static, "model.onnx", calibrator)
        yield Variant(f"static int8{said} in ONNX Runtime", ORT, make, ORT)
    for runtime, rest in runtimes.items():
        name, make = f"NNCF int8 in OpenVINO{rest}", partial(made, stage, teacher, post_training.nncf, "model.xml")
        yield Variant(name, "nncf", make, runtime)
    yield Variant("Olive int8 in ONNX Runtime", "olive", partial(_olive, stage, teacher), ORT)
    reads_text = stage.params.task.name == "text"
    if student.is_dir():
        kind, quantizer = ("dynamic", post_training.dynamic) if reads_text else ("static", post_training.static)
        make, tool = partial(made, stage, student, quantizer), f"distillation{peer_goals.BOTH}{ORT}"
        yield Variant(f"layer-dropped student, {kind} int8", tool, make, ORT)
    if not reads_text:  # its pruner takes channels of convolutions
        for ratio in PRUNED:
            name = f"torch-pruning, {ratio:.0%} of MACs gone, static int8"
            tool = f"torch-pruning{peer_goals.BOTH}{ORT}"
            yield Variant(name, tool, partial(_pruned, stage, teacher, ratio), ORT)
    for name in stage.params.export.stages:
        if name != ROOT:
            yield Variant(ours(name), peer_goals.OURS, partial(EXPORTS.joinpath, name), runtime_of[name])
    last = stage.params.export.stages[-1]
    yield Variant(f"{ours(last)}{SHARED}", peer_goals.OURS, partial(EXPORTS.joinpath, last), runtime_choice.BY_ROWS)


def ours(stage: str) -> str:
    """Return what the result of one of our stages is called."""
    return f"Slimline: {stage}"


def _pruned(stage: Stage, teacher: Path, ratio: float) -> Path:
    recovery = channel_pruning.whole_recovery(stage).model_dump(mode="json")
    return made(stage, teacher, channel_pruning.to_int8, "model.onnx", ratio, recovery)


def _olive(stage: Stage, teacher: Path) -> Path:
    if not find_spec("olive"):
        raise SlimlineError("olive-ai isn't installed: pip install 'slimline[peers]'")
    import olive_workflow

    return made(stage, teacher, olive_workflow.compressed)


def made(stage: Stage, source: Path, make: Callable[..., None], file: str = "model.onnx", *settings: Any) -> Path:
    """Return the folder of what ``make`` does to an export, done before or now; it writes ``file``."""
    code = [manifest.sha256(Path(path)) for path in (inspect.getfile(make), post_training.__file__)]
    known = [manifest.digest(source), stage.limit, _versions(), code, *settings]
    folder = MADE / f"{make.__name__}-{hashlib.sha256(manifest.canonical(known)).hexdigest()[:16]}"
    if not folder.is_dir():
        print(f"{source.name}: {make.__name__}", flush=True)
        with manifest.sealed(folder) as scratch, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for kept in ("signature.json", "preprocess.json"):
                shutil.copy(source / kept, scratch / kept)
            make(stage, source / "model.onnx", scratch / file, *settings)
    return folder


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


class Running:
    """An export on a runtime."""

    def __init__(self, export: Path, runtime: str, threads: int) -> None:
        file = "model.xml" if (export / "model.xml").is_file() else "model.onnx"
        self._runtime = plugins.find("runtimes", runtime)(export, threads, file=file)
        self.run: Callable[[Arrays], Arrays] = self._runtime.run
        self.close: Callable[[], None] = self._runtime.close
        weights = [export / file, (export / file).with_suffix(".bin")]
        self.bytes = sum(path.stat().st_size for path in weights if path.is_file())

    def outputs(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """Return the first output for every row."""
        count = len(next(iter(inputs.values())))
        parts = [
            next(iter(self.run({name: array[at : at + ROWS] for name, array in inputs.items()}).values()))
            for at in range(0, count, ROWS)
        ]
        return np.concatenate(parts)


@dataclass
class Workload:
    """What is known of a workload: ``rows`` {variant: numbers}, ``failed`` {variant: why, in one line}.

    Variants that have one of ``without`` in their name are ``left_out``.
    """

    name: str
    stage: Stage
    without: Sequence[str] = ()

    def __post_init__(self) -> None:
        self.rows: dict[str, dict[str, Any]] = {}
        self.failed: dict[str, str] = {}
        self.left_out: list[str] = []
        self._exports: dict[str, tuple[Path, str]] = {}
        self._outputs: dict[str, NDArray[Any]] = {}  # of the test split
        self._ahead: dict[str, dict[str, tuple[float, list[float]]]] = {}

    def measure(self) -> dict[str, Any]:
        """Make and measure every variant; return the workload's entry of metrics/peers.json."""
        stages = manifest.read_json(Path("metrics/latency.json"))["stages"]
        for variant in variants(self.stage, {name: row["runtime"] for name, row in stages.items()}):
            if any(part in variant.name for part in self.without):
                self.left_out.append(variant.name)
                continue
            with self._recorded(variant.name):
                export = variant.make()
                row = self._quality(variant.name, export, variant.runtime)
                self._exports[variant.name] = export, variant.runtime
                self.rows[variant.name] = {"tool": variant.tool, "runtime": variant.runtime, **row}
        if BASE not in self.rows:
            why = self.failed.get(BASE, "left out by --without")
            raise SlimlineError(f"{self.name}: {BASE}: {why}; nothing to compare with")
        last = ours(self.stage.params.export.stages[-1])
        own = f"{last}{SHARED}"
        inputs = latency.typical_batches(self.stage.splits["calibration"], BATCH_SIZES, REPEATS, self.stage.params.seed)
        for threads in THREADS:
            self._note(self._times(inputs, threads), threads, own)
        self.rows = {name: row for name, row in self.rows.items() if name not in self.failed}
        primary = self.stage.task.primary
        judged = own in self.rows
        ahead = {name: each for name, each in self._ahead.items() if name in self.rows}
        aims = peer_goals.goals(self.name, self.rows, BASE, own, ahead, primary) if judged else []
        nearest = peer_goals.nearest(self.rows, own, ahead, primary) if judged else []
        return {
            "machine": benchmark.machine(), "versions": _versions(), "primary": primary, "ours": own,
            "rows": len(self.stage.splits["test"]), "variants": self.rows, "failed": self.failed,
            "left_out": self.left_out, "goals": [each.as_json() for each in aims],
            "nearest": {each: self._beside(each, own)["drops"] for each in nearest},
            "operators": self._operators((BASE, last), inputs),
        }  # fmt: skip

    @contextmanager
    def _recorded(self, name: str) -> Iterator[None]:
        """Note in ``failed`` what goes wrong, whatever a tool raises, and go on."""
        try:
            yield
        except Exception as error:  # noqa: BLE001
            said = re.sub(r"(?<!\w)/\S*/", "", " ".join(str(error).split()))  # names of files, no folders
            said = said or repr(error)
            self.failed[name] = f"{type(error).__name__}: {said[:200]}"
            print(f"{name}: failed: {self.failed[name]}", file=sys.stderr)
            if not isinstance(error, SlimlineError):
                traceback.print_exception(error)

    def _quality(self, name: str, export: Path, runtime: str) -> dict[str, Any]:
        """Return the quality of an export on the test split beside the first one's, and its bytes."""
        running = Running(export, runtime, max(THREADS))
        self._outputs[name] = running.outputs(self.stage.splits["test"].inputs)
        running.close()
        quality = self._beside(next(iter(self._outputs)), name)
        quality.pop("per_class", None)
        return {"bytes": running.bytes, **quality, "latency_ms": {}, "speedup": {}, "speedup_ci": {}}

    def _beside(self, base: str, own: str) -> dict[str, Any]:
        """Return the quality of one variant's answers to the test split beside another's, row by row."""
        outputs = self._outputs
        return benchmark.quality(self.stage.task, self.stage.splits["test"], outputs[base], outputs[own], CONFIDENCE)

    def _times(self, inputs: Mapping[int, list[Arrays]], threads: int) -> Measured:
        """Return how long the variants take that answer each batch, interleaved."""
        running: dict[str, Running] = {}
        for name, (export, runtime) in self._exports.items():
            with self._recorded(name):
                running[name] = Running(export, runtime, threads)
                for batches in inputs.values():
                    running[name].run(batches[0])
        answering = {name: each.run for name, each in running.items() if name not in self.failed}
        with progress.rounds(f"{threads} threads", ROUNDS) as done:
            samples = latency.measure(
                answering,
                inputs,
                rounds=ROUNDS,
                repeats=REPEATS,
                seed=self.stage.params.seed,
                progress=done,
                most=MOST_S,
            )
        for each in running.values():
            each.close()
        return samples

    def _operators(
        self, names: Sequence[str], inputs: Mapping[int, list[Arrays]]
    ) -> dict[str, dict[str, dict[str, float]]]:
        """Return {variant: {place: {kind of operator: microseconds}}} of those that run in ONNX Runtime."""
        found: dict[str, dict[str, dict[str, float]]] = {}
        for name in names:
            export, runtime = self._exports.get(name, (Path(), ""))
            if runtime == ORT:
                found[name] = {
                    f"b{batch}/t{threads}": operators.microseconds(export / "model.onnx", inputs[batch], threads)
                    for batch in BATCH_SIZES
                    for threads in THREADS
                }
        return found

    def _note(self, samples: Measured, threads: int, own: str) -> None:
        """Put what was timed into the rows, and how far ``own`` is ahead of each."""
        for name, table in latency.table(samples, BASE, CONFIDENCE).items():
            for batch in BATCH_SIZES:
                place = f"b{batch}/t{threads}"
                for key in ("latency_ms", "speedup", "speedup_ci"):
                    value = table[key][str(batch)]
                    self.rows[name][key][place] = value["p50"] if key == "latency_ms" else value
                if own in samples:
                    ratio = latency.speedup(samples[name][batch], samples[own][batch], CONFIDENCE)
                    self._ahead.setdefault(name, {})[place] = ratio


def panel(name: str, workload: Mapping[str, Any], place: str) -> Draw:
    """Return a drawing of the variants' speed-ups at one place, the slowest on top, with what share they get right."""
    rows = sorted(workload["variants"].items(), key=lambda each: -each[1]["speedup"][place])

    def draw(ax: Axes) -> None:
        batch, threads = place.removeprefix("b").split("/t")
        ax.set_title(f"{name}: batch {batch}, {threads} thread")
        for at, (variant, row) in enumerate(rows):
            speed, (low, high) = row["speedup"][place], row["speedup_ci"][place]
            ax.barh(at, speed, 0.42, color=GAIN if row["tool"] == peer_goals.OURS else MUTED)
            ax.plot([low, high], [at, at], color=INK, linewidth=1)
            ax.text(0, at + 0.27, f"{variant}, {row[workload['primary']]:.1%}", fontsize=8, va="bottom")
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)
        ax.set_xlabel("times as fast as fp32 in ONNX Runtime")

    return draw


def main() -> int:
    """Measure the workloads that were run, or those named, and write them beside the others' earlier numbers.

    Return how many could not be measured at all.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = sorted(path.parent.parent.name for path in EXAMPLES.glob("*/metrics/latency.json"))
    parser.add_argument("workloads", nargs="*", default=known)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument(
        "--without", nargs="*", default=[], metavar="PART", help="leave out variants with it in their name"
    )
    options = parser.parse_args()
    if not options.workloads:
        sys.exit(f"{EXAMPLES}: no workload there; make example-topics runs one")
    if strange := [name for name in options.workloads if name not in known]:
        sys.exit(f"{EXAMPLES / strange[0]}: not run to its end; make example-{strange[0]} does")
    document = manifest.read_json(options.out) if options.out.is_file() else {"format": 1, "workloads": {}}
    failed = 0
    for name in options.workloads:
        try:
            with chdir(EXAMPLES / name):
                settings = params.load()
                fix_randomness(settings.seed)
                workload = Workload(name, Stage(ROOT, settings, settings.limit), options.without).measure()
        except SlimlineError as error:
            failed += 1
            print(f"error: {error}", file=sys.stderr)
            continue
        document["workloads"][name] = workload
        manifest.write_json(options.out, document)
        for variant, row in workload["variants"].items():
            speeds = ", ".join(f"{place} {ratio:.2f}x" for place, ratio in row["speedup"].items())
            print(f"{name}: {variant}: {row[workload['primary']]:.4f}, {row['bytes']:,} bytes, {speeds}")
        for goal in workload["goals"]:
            print(f"{name}: {'met' if goal['met'] else 'missed'}: {goal['aim']}")
    drawn = [panel(*each, place) for each in document["workloads"].items() for place in ("b1/t1", "b8/t1")]
    most = max((len(each["variants"]) for each in document["workloads"].values()), default=0)
    if drawn:
        PICTURE.write_bytes(picture.png(1 + 0.4 * most, drawn))
    return failed


if __name__ == "__main__":
    sys.exit(main() > 0)
