"""Measure the speed of every exported stage on the target, all interleaved in one run -> metrics/latency.json.

With ``target.runtime: auto`` each stage runs on every runtime that is installed, and the fastest whose answers on
validation rows keep the budget is taken.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from slimline import benchmark, engines, latency, manifest, progress, runtime_choice
from slimline.pipeline import EXPORTS, ROOT
from slimline.predictor import Arrays, Predictor
from slimline.stage import Stage, run

FILE = Path("metrics/latency.json")


def main(stage: Stage) -> None:
    """Time all listed exports on real calibration rows and write percentiles, throughput and speed-ups."""
    params, target = stage.params, stage.params.target
    runtimes = runtime_choice.candidates(target.runtime, target.threads)
    predictors = {
        (name, runtime): Predictor(EXPORTS / name, runtime=runtime, threads=target.threads)
        for name in params.export.stages
        for runtime in runtimes
    }
    computed = {pair: runtime_choice.precision(predictor.runtime) for pair, predictor in predictors.items()}
    runtimes = runtime_choice.distinct(runtimes, {each: computed[ROOT, each] for each in runtimes})
    predictors = {pair: predictor for pair, predictor in predictors.items() if pair[1] in runtimes}
    calls = {_key(*pair): predictor.runtime.run for pair, predictor in predictors.items()}
    inputs = latency.typical_batches(
        stage.splits["calibration"], target.batch_sizes, stage.params.latency.repeats, stage.params.seed
    )

    base = _key(ROOT, runtimes[0])
    samples, spread = latency.steadiest(
        lambda: _rounds(stage, calls, inputs, "latency rounds"), base, params.budget.confidence
    )
    if spread > latency.STEADY:
        print(f"latency: a busy machine: one speed-up is known to a factor of {spread:.2f} only")
    by_runtime = {
        runtime: {name: samples[_key(name, runtime)] for name in params.export.stages} for runtime in runtimes
    }
    allowed = validated(stage, predictors) if len(runtimes) > 1 else dict.fromkeys(predictors, True)
    chosen = {
        name: runtime_choice.fastest(
            {runtime: by_runtime[runtime][name] for runtime in runtimes},
            {runtime: allowed[name, runtime] for runtime in runtimes},
        )
        for name in params.export.stages
    }
    stages = latency.table(
        {name: by_runtime[runtime][name] for name, runtime in chosen.items()}, ROOT, params.budget.confidence
    )
    for name, row in progress.each(stages.items(), "peak memory", len(stages), "stage"):
        row.update({"runtime": chosen[name]} | computed[name, chosen[name]])
        row["peak_rss_mb"] = benchmark.peak_rss_mb(
            EXPORTS / name, max(target.batch_sizes), target.threads, chosen[name]
        )
        if len(runtimes) > 1:
            tqdm.write(f"latency: {name} runs fastest on {chosen[name]} of {', '.join(runtimes)}")
    document = {
        "format": 1,
        "machine": benchmark.machine(),
        "target": target.model_dump(),
        "spread": round(spread, 3),
        "stages": stages,
        "runtimes": {
            runtime: {
                name: row | {"within_budget": allowed[name, runtime]} | computed[name, runtime]
                for name, row in latency.table(by_runtime[runtime], ROOT, params.budget.confidence).items()
            }
            for runtime in runtimes
        },
        "engines": engine_times(stage, inputs),
    }
    manifest.write_json(FILE, document)


def _key(stage: str, runtime: str) -> str:
    return f"{stage} on {runtime}"


def validated(stage: Stage, predictors: Mapping[tuple[str, str], Predictor]) -> dict[tuple[str, str], bool]:
    """Return {(stage, runtime): whether its answers on validation rows keep the budget's max_drop}."""
    task, rows, limits = stage.task, stage.splits["validation"], stage.params.budget.max_drop
    values = {
        pair: task.metrics(
            task.decided(benchmark.of_split(predictor.predict, rows, pair[1]), predictor.signature), rows.targets
        )
        for pair, predictor in progress.each(predictors.items(), "validation answers", len(predictors), "export")
    }
    first = next(runtime for _, runtime in predictors)
    teacher = values[ROOT, first]
    drops = {
        pair: {
            metric: (teacher[metric] - own[metric]) * (1 if task.higher_is_better_of(metric) else -1)
            for metric in limits
            if metric in own
        }
        for pair, own in values.items()
    }
    known = {metric: limit for metric, limit in limits.items() if metric in teacher}
    return {pair: runtime_choice.fits(own, drops[pair[0], first], known) for pair, own in drops.items()}


def engine_times(stage: Stage, inputs: dict[int, list[Arrays]]) -> dict[str, Any]:
    """Return each TensorRT engine's times on this machine's GPU, interleaved; empty where it has none for them.

    Speed-ups are over the teacher's engine, which stands in every export list.
    """
    chosen = [name for name in stage.params.export.stages if engines.run_here(EXPORTS / name)]
    if ROOT not in chosen:
        return {}
    predictors = {name: Predictor(EXPORTS / name, runtime="tensorrt") for name in chosen}
    samples = _rounds(stage, {name: each.runtime.run for name, each in predictors.items()}, inputs, "engine rounds")
    for each in predictors.values():
        each.close()
    return latency.table(samples, ROOT, stage.params.budget.confidence)


def _rounds(
    stage: Stage, calls: Mapping[str, Callable[[Arrays], Any]], inputs: dict[int, list[Arrays]], title: str
) -> latency.Measured:
    settings = stage.params.latency
    with progress.rounds(f"{title} of {len(calls)} models", settings.rounds) as done:
        return latency.measure(
            calls, inputs,
            rounds=settings.rounds, repeats=settings.repeats, seed=stage.params.seed, progress=done,
        )  # fmt: skip


if __name__ == "__main__":
    run("latency", main)
