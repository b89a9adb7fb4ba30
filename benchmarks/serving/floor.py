"""The runtime in a loop, and nothing around it: what no server can beat. Prints JSON: p50_ms and rows a second."""

import json
import sys
import time
from pathlib import Path

import bodies
import numpy as np

from slimline.predictor import Predictor


def measure(release: Path, rows: int, seconds: float) -> dict[str, float]:
    """Return percentiles of one call on ``rows`` rows and the rows a second."""
    inputs = {name: np.repeat(array, rows, axis=0) for name, array in bodies.golden(release)[0].items()}
    predictor = Predictor(release, threads=1)
    run = predictor.runtime.run
    for _ in range(5):
        run(inputs)
    took = []
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        run(inputs)
        took.append(time.perf_counter() - start)
    predictor.close()
    p50, p95, p99 = np.percentile(took, [50, 95, 99]) * 1e3
    found = {"p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "throughput": rows * len(took) / sum(took)}
    return {name: float(value) for name, value in found.items()}


if __name__ == "__main__":
    folder, length = Path(sys.argv[1]), float(sys.argv[2])
    print(json.dumps({str(count): measure(folder, count, length) for count in (1, 32)}))
