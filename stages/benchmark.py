"""Answer the test split with every exported stage, once, and join quality and speed -> metrics/benchmark.json."""

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from slimline import benchmark, manifest, progress
from slimline.pipeline import EXPORTS, ROOT
from slimline.predictor import Predictor
from slimline.stage import Stage, run
from slimline.task import Split
from slimline.teachers import baselines, chance

LATENCY = Path("metrics/latency.json")


def main(stage: Stage) -> None:
    """Compare every stage of params.yaml's export list with the teacher on the same test rows."""
    params, task = stage.params, stage.task
    test, validation = stage.splits["test"], stage.splits["validation"]
    speed = manifest.read_json(LATENCY)
    target, confidence = params.target, params.budget.confidence
    stages, exported, ran, base, guessing = {}, {}, {}, None, None

    def decided(predictor: Predictor, rows: Split) -> NDArray[Any]:
        return task.decided(benchmark.of_split(predictor.predict, rows, predictor.runtime_name), predictor.signature)

    ordered = sorted(params.export.stages, key=lambda each: each != ROOT)
    with progress.steps("benchmark", len(ordered)) as begin:
        for name in ordered:
            begin(name)
            predictor = Predictor(EXPORTS / name, runtime=speed["stages"][name]["runtime"], threads=target.threads)
            own = decided(predictor, test)
            if base is None:
                base = own
                guessing = chance.of(task, base, test.targets, f"{EXPORTS / name}", "test")
            row = benchmark.quality(task, test, base, own, confidence, params.benchmark.metrics)
            checked = task.metrics(decided(predictor, validation), validation.targets)
            row[f"validation_{task.primary}"] = checked[task.primary]
            facts = exported[name] = manifest.read_json(EXPORTS / name / "facts.json")
            row |= {key: facts[key] for key in ("params", "macs", "bytes", "sparsity", "bits")}
            row |= speed["stages"][name] | {"variant": facts["variant"], "threads": target.threads}
            stages[name] = row
            if name in speed["engines"]:
                engine = Predictor(EXPORTS / name, runtime="tensorrt")
                on_gpu = decided(engine, test)
                engine.close()
                ran[name] = speed["engines"][name] | benchmark.quality(task, test, base, on_gpu, confidence)
    document = {
        "format": benchmark.FORMAT,
        "task": params.task.name,
        "primary": task.primary,
        "higher_is_better": task.higher_is_better,
        "confidence": confidence,
        "machine": speed["machine"],
        "target": target.model_dump(),
        "rows": {"test": len(test), "validation": len(validation)},
        "spread": speed.get("spread", 1.0),
        "left_out": stage.left_out,
        "stages": {name: stages[name] for name in params.export.stages},
        "targets": {
            **{
                f"{runtime}/onnx/t{target.threads}": {"stages": rows, "status": "run"}
                for runtime, rows in speed["runtimes"].items()
            },
            **benchmark.engine_targets(exported, target.threads, ran),
        },
    }
    if guessing:
        document["teacher_at_chance"] = {"what": guessing.what, "fact": guessing.fact, "margin": guessing.margin}
        print(f"benchmark: the teacher is {guessing.what}: {guessing.fact}")
    with progress.steps("benchmark of simpler models", 1) as begin:
        begin("baselines")
        simpler, notes = baselines.measured(task, stage.limit)
    for note in notes:
        print(f"benchmark: {note}")
    if simpler:
        document["baselines"] = simpler
    manifest.write_json(benchmark.FILE, document)


if __name__ == "__main__":
    run("benchmark", main)
