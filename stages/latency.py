"""Measure the speed of every exported stage on the target, all interleaved in one run -> metrics/latency.json."""

from pathlib import Path

from tqdm import tqdm

from slimline import benchmark, latency, manifest
from slimline.predictor import Predictor
from slimline.stage import Stage, run

EXPORTS = Path("exports")
FILE = Path("metrics/latency.json")


def main(stage: Stage) -> None:
    """Time all listed exports on real calibration rows and write percentiles, throughput and speed-ups."""
    params, target = stage.params, stage.params.target
    predictors = {
        name: Predictor(EXPORTS / name, runtime=target.runtime, threads=target.threads) for name in params.export.stages
    }
    rows, _ = stage.splits["calibration"][slice(0, max(target.batch_sizes))]
    calls = {name: predictor.runtime.run for name, predictor in predictors.items()}
    inputs = latency.sample_inputs(stage.task.signature(), target.batch_sizes, rows)

    def once() -> latency.Measured:
        with tqdm(total=params.latency.rounds, desc="latency rounds", disable=None) as bar:
            return latency.measure(
                calls, inputs,
                rounds=params.latency.rounds, repeats=params.latency.repeats, seed=params.seed, progress=bar.update,
            )  # fmt: skip

    samples, spread = latency.steadiest(once, "teacher", params.budget.confidence)
    if spread > latency.STEADY:
        print(f"latency: a busy machine: one speed-up is known to a factor of {spread:.2f} only")
    stages = {}
    for name, by_batch in samples.items():
        ratios = {
            batch: latency.speedup(samples["teacher"][batch], each, params.budget.confidence)
            for batch, each in by_batch.items()
        }
        stages[name] = {
            "latency_ms": {str(batch): each.percentiles_ms() for batch, each in by_batch.items()},
            "throughput": {str(batch): round(batch / each.p50, 1) for batch, each in by_batch.items()},
            "speedup": {str(batch): ratio for batch, (ratio, _) in ratios.items()},
            "speedup_ci": {str(batch): interval for batch, (_, interval) in ratios.items()},
            "peak_rss_mb": benchmark.peak_rss_mb(EXPORTS / name, max(target.batch_sizes), target.threads),
        }
    document = {
        "format": 1,
        "machine": benchmark.machine(),
        "target": target.model_dump(),
        "spread": round(spread, 3),
        "stages": stages,
    }
    manifest.write_json(FILE, document)


if __name__ == "__main__":
    run("latency", main)
