"""Is each stage worth its place, and the last stage its road? Over seeds, on the teacher that ``make repro`` left.

``make ablation`` runs, for each seed, the chain after the teacher and the chain with each stage left out (its readers
take what it would have read), and trains from scratch (hard labels, distill's own schedule) the very architecture that
came out and the student family's narrower and shallower members of at least as many parameters. Test metric, bytes and
latency go to metrics/ablation.json; docs/check.py --write puts the tables into docs/methods.md.
"""

from __future__ import annotations

import argparse
import copy
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from workspace import workspace

from slimline import artifact, latency, manifest, metrics, params, pipeline
from slimline.artifact import Named
from slimline.export.facts import count_params
from slimline.predictor import Predictor
from slimline.stage import Stage
from slimline.training import State, fit
from slimline.training.losses import SoftTargets

SEEDS = (0, 1, 2)
OUT = Path("metrics/ablation.json")
T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}  # Student's t at 97.5%, by the number of seeds


def without(document: dict[str, Any], stage: str) -> dict[str, Any]:
    """Return the params document whose chain skips ``stage``: whoever reads it reads what it read."""
    changed = copy.deepcopy(document)
    gone = changed.pop(stage)
    for section in changed.values():
        if isinstance(section, dict) and section.get("from") == stage:
            section["from"] = gone["from"]
    changed["export"]["stages"] = [each for each in changed["export"]["stages"] if each != stage]
    return changed


def run_chain(document: dict[str, Any], done: Path, keep: Path) -> dict[str, Any]:
    """Run a chain's missing stages and return its end's test metric and bytes; artifacts and export go to ``keep``."""
    last = pipeline.last(document)
    with workspace(document, done) as root:
        for stage in pipeline.chain(document, last):
            if not (root / "artifacts" / stage).exists():
                _script(f"stages/{stage}.py")
        _script("stages/export.py", last)
        shutil.copytree(root / "artifacts", keep / "artifacts")
        shutil.copytree(root / "exports" / last, keep / "export")
        value = test_metric(Stage(last, params.load(), None), last)
    return {"value": value, "bytes": (keep / "export/model.onnx").stat().st_size}


def _script(path: str, *arguments: str) -> None:
    subprocess.run([sys.executable, "-P", path, *arguments], check=True, stdout=subprocess.DEVNULL)


def test_metric(stage: Stage, name: str) -> float:
    """Return the primary test metric of artifacts/NAME."""
    model, _, _ = stage.load(name)
    return metrics.evaluate(model, stage.task, stage.splits["test"])[stage.task.primary]


def stages_left_out(
    document: dict[str, Any], leave_out: Sequence[str], seeds: Sequence[int], folder: Path
) -> dict[str, Any]:
    """Return {"whole" or a stage's name: values over seeds}; one seed's latencies are measured interleaved."""
    order = [stage for stage in pipeline.chain(document, pipeline.last(document)) if stage != pipeline.ROOT]
    rows: dict[str, dict[str, list[Any]]] = {
        each: {"values": [], "bytes": [], "latency_ms": []} for each in ("whole", *leave_out)
    }
    teacher = folder / "teacher"
    shutil.copytree("artifacts/teacher", teacher / "teacher")
    for seed in seeds:
        seeded = document | {"seed": seed}
        results = {"whole": run_chain(seeded, teacher, folder / f"{seed}-whole")}
        for stage in leave_out:
            done = folder / f"{seed}-before-{stage}"
            shutil.copytree(teacher, done)
            for earlier in order[: order.index(stage)]:
                shutil.copytree(folder / f"{seed}-whole/artifacts" / earlier, done / earlier)
            results[stage] = run_chain(without(seeded, stage), done, folder / f"{seed}-{stage}")
        times = _latencies({name: folder / f"{seed}-{name}/export" for name in results})
        for name, result in results.items():
            rows[name]["values"].append(result["value"])
            rows[name]["bytes"].append(result["bytes"])
            rows[name]["latency_ms"].append(times[name])
    return rows


def _latencies(exports: dict[str, Path]) -> dict[str, dict[str, float]]:
    settings = params.load()
    target = settings.target
    predictors = {
        name: Predictor(path, runtime=target.runtime, threads=target.threads) for name, path in exports.items()
    }
    stage = Stage(pipeline.ROOT, settings, None)
    rows, _ = stage.splits["calibration"][slice(0, max(target.batch_sizes))]
    samples = latency.measure(
        {name: predictor.runtime.run for name, predictor in predictors.items()},
        latency.sample_inputs(stage.task.signature(), target.batch_sizes, rows),
        rounds=settings.latency.rounds, repeats=settings.latency.repeats,
    )  # fmt: skip
    return {name: {str(batch): each.p50 * 1e3 for batch, each in by.items()} for name, by in samples.items()}


def from_scratch(stage: Stage, named: Named, edits: list[artifact.Edit], seed: int) -> tuple[float, int]:
    """Train an architecture on hard labels by distill's schedule; return its test metric and parameter count."""
    import torch

    torch.manual_seed(seed)
    model = artifact.rebuild(stage.task, named, [edit for edit in edits if "kept" in edit.data])
    # rebuilding restores the random state: draw the sliced net's weights anew, at their own fan-in
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, torch.nn.Linear):
            module.reset_parameters()
    settings = stage.section.training.model_copy(update={"mixup": 0.0})  # a blended row has no hard label
    with tempfile.TemporaryDirectory() as folder:
        fit(
            model, stage.task, stage.splits["train"], stage.splits["validation"], settings,
            loss=SoftTargets(), seed=seed, state=State({"seed": seed}, Path(folder)),
            where="params.yaml: distill.training",
        )  # fmt: skip
    value = metrics.evaluate(model, stage.task, stage.splits["test"])[stage.task.primary]
    return value, count_params(model)


def narrower(stage: Stage, size: int) -> list[Named]:
    """Return the student's own family at shapes whose parameter count is just above ``size``, one a depth."""
    student = stage.section.model
    found = []
    for depth in (8, 10):
        for width in range(4, 33):
            args = {**student.args, "depth": depth, "width": width}
            if count_params(artifact.build_model(stage.task, Named(student.name, args), "ablation")) >= size:
                found.append(Named(student.name, args))
                break
    return found


def own_size(last: str, seeds: Sequence[int]) -> dict[str, Any]:
    """Return {architecture: parameters and test metrics over seeds} of nets trained without a teacher."""
    stage = Stage("distill", params.load(), None)
    described = artifact.read(artifact.FOLDER / last)
    pairs = {"same architecture": [from_scratch(stage, described.model, described.edits, seed) for seed in seeds]}
    size = pairs["same architecture"][0][1]
    if described.model.name == "resnet":
        for named in narrower(stage, size):
            label = f"resnet depth {named.args['depth']} width {named.args['width']}"
            pairs[label] = [from_scratch(stage, named, [], seed) for seed in seeds]
    return {label: {"params": each[0][1], "values": [value for value, _ in each]} for label, each in pairs.items()}


def with_interval(chain: Sequence[float], other: Sequence[float]) -> list[float]:
    """Return [low, mean, high] of chain − other, paired by seed (Student's t, 95%)."""
    difference = np.array(chain) - np.array(other)
    half = T_95[len(difference)] * float(difference.std(ddof=1)) / len(difference) ** 0.5
    return [float(difference.mean() - half), float(difference.mean()), float(difference.mean() + half)]


def main() -> None:
    """Run the parts asked for and write values, means and differences with their intervals."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument(
        "--parts", nargs="+", choices=("left-out", "from-scratch"), default=["left-out", "from-scratch"]
    )
    options = parser.parse_args()
    document = params.read()
    last = pipeline.last(document)
    teacher = manifest.digest(artifact.FOLDER / pipeline.ROOT)
    measured: dict[str, Any] = {"format": 1, "last": last, "seeds": options.seeds, "teacher": teacher}
    with tempfile.TemporaryDirectory() as folder:
        order = [stage for stage in pipeline.chain(document, last) if stage != pipeline.ROOT]
        leave_out = order if "left-out" in options.parts else []
        lines = stages_left_out(document, leave_out, options.seeds, Path(folder))
    chain = lines["whole"]["values"]
    measured["chain"] = {"values": chain, "mean": float(np.mean(chain))}
    if leave_out:
        measured["left_out"] = lines
    if "from-scratch" in options.parts:
        measured["from_scratch"] = own_size(last, options.seeds)
    for row in [*lines.values(), *measured.get("from_scratch", {}).values()]:
        row["mean"] = float(np.mean(row["values"]))
        row["chain_minus_this"] = with_interval(chain, row["values"])
    manifest.write_json(OUT, measured)
    print(manifest.as_json(measured))


if __name__ == "__main__":
    main()
