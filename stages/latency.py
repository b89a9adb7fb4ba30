"""Measure the speed of every exported stage on the target, all interleaved in one run -> metrics/latency.json."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from slimline import benchmark, engines, latency, manifest
from slimline.predictor import Arrays, Predictor
from slimline.stage import Stage, run

EXPORTS = Path("exports")
FILE = Path("metrics/latency.json")
ROOT = "teacher"


def main(stage: Stage) -> None:
    """Time all listed exports on real calibration rows and write percentiles, throughput and speed-ups."""
    params, target = stage.params, stage.params.target
    predictors = {
        name: Predictor(EXPORTS / name, runtime=target.runtime, threads=target.threads) for name in params.export.stages
    }
    rows, _ = stage.splits["calibration"][slice(0, max(target.batch_sizes))]
    calls = {name: predictor.runtime.run for name, predictor in predictors.items()}
    inputs = latency.sample_inputs(stage.task.signature(), target.batch_sizes, rows)

    samples, spread = latency.steadiest(lambda: _rounds(stage, calls, inputs), ROOT, params.budget.confidence)
    if spread > latency.STEADY:
        print(f"latency: a busy machine: one speed-up is known to a factor of {spread:.2f} only")
    stages = latency.table(samples, ROOT, params.budget.confidence)
    for name, row in stages.items():
        row["peak_rss_mb"] = benchmark.peak_rss_mb(EXPORTS / name, max(target.batch_sizes), target.threads)
    document = {
        "format": 1,
        "machine": benchmark.machine(),
        "target": target.model_dump(),
        "spread": round(spread, 3),
        "stages": stages,
        "engines": engine_times(stage, inputs),
    }
    manifest.write_json(FILE, document)


def engine_times(stage: Stage, inputs: dict[int, Arrays]) -> dict[str, Any]:
    """Return each TensorRT engine's times on this machine's GPU, interleaved; empty where it has none for them.

    Speed-ups are over the teacher's engine, which stands in every export list.
    """
    chosen = [name for name in stage.params.export.stages if engines.run_here(EXPORTS / name)]
    if ROOT not in chosen:
        return {}
    predictors = {name: Predictor(EXPORTS / name, runtime="tensorrt") for name in chosen}
    samples = _rounds(stage, {name: each.runtime.run for name, each in predictors.items()}, inputs)
    for each in predictors.values():
        each.close()
    return latency.table(samples, ROOT, stage.params.budget.confidence)


def _rounds(stage: Stage, calls: Mapping[str, Callable[[Arrays], Any]], inputs: dict[int, Arrays]) -> latency.Measured:
    settings = stage.params.latency
    with tqdm(total=settings.rounds, desc="latency rounds", disable=None) as bar:
        return latency.measure(
            calls, inputs,
            rounds=settings.rounds, repeats=settings.repeats, seed=stage.params.seed, progress=bar.update,
        )  # fmt: skip


if __name__ == "__main__":
    run("latency", main)
