"""Is the last stage worth its road? Against nets of its own size trained from scratch, without a teacher, over seeds.

``make ablation`` after ``make repro``. For each seed it runs distill → … → last stage anew on the same teacher, trains
from scratch (hard labels, distill's own schedule) the very architecture that came out, and the student family's
narrower and shallower members of at least as many parameters, and compares all on the test split
-> metrics/ablation.json.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import yaml

from slimline import artifact, manifest, metrics, params, pipeline
from slimline.artifact import Named
from slimline.export.facts import count_params
from slimline.stage import Stage
from slimline.training import State, fit
from slimline.training.losses import SoftTargets

SEEDS = (0, 1, 2)
OUT = Path("metrics/ablation.json")


def chain_accuracy(seed: int, stages: list[str]) -> float:
    """Run every stage after the teacher with another seed in a folder of its own and return the test metric."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in ("data", "stages"):
            (root / name).symlink_to(Path(name).resolve())
        (root / "artifacts").mkdir()
        shutil.copytree("artifacts/teacher", root / "artifacts/teacher")
        document = params.read() | {"seed": seed}
        (root / "params.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
        for stage in stages:
            subprocess.run(
                [sys.executable, "-P", f"stages/{stage}.py"], cwd=root, check=True, stdout=subprocess.DEVNULL
            )
        here = Path.cwd()
        os.chdir(root)
        try:
            return test_metric(Stage(stages[-1], params.load(), None), stages[-1])
        finally:
            os.chdir(here)


def test_metric(stage: Stage, name: str) -> float:
    """Return the primary test metric of artifacts/NAME."""
    model, _, _ = stage.load(name)
    return metrics.evaluate(model, stage.task, stage.splits["test"])[stage.task.primary]


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


def main() -> None:
    """Run all comparisons and write mean, values and the difference with its interval."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    seeds = parser.parse_args().seeds
    document = params.read()
    last = pipeline.last(document)
    order = [stage for stage in pipeline.ancestors(document, last) if stage != pipeline.ROOT]
    stage = Stage("distill", params.load(), None)
    described = artifact.read(artifact.FOLDER / last)
    own = {"chain": [chain_accuracy(seed, order) for seed in seeds]}
    scratch = {"same architecture": [from_scratch(stage, described.model, described.edits, seed) for seed in seeds]}
    size = scratch["same architecture"][0][1]
    if described.model.name == "resnet":
        for named in narrower(stage, size):
            label = f"resnet depth {named.args['depth']} width {named.args['width']}"
            scratch[label] = [from_scratch(stage, named, [], seed) for seed in seeds]
    rows = {label: {"params": pairs[0][1], "values": [value for value, _ in pairs]} for label, pairs in scratch.items()}
    rows["chain"] = {"params": size, "values": own["chain"]}
    for row in rows.values():
        row["mean"] = float(np.mean(row["values"]))
        difference = np.array(own["chain"]) - np.array(row["values"])
        half = 4.303 * difference.std(ddof=1) / len(seeds) ** 0.5 if len(seeds) == 3 else float("nan")
        row["chain_minus_this"] = [
            float(difference.mean() - half),
            float(difference.mean()),
            float(difference.mean() + half),
        ]
    manifest.write_json(OUT, {"format": 1, "last": last, "seeds": seeds, "rows": rows})
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
