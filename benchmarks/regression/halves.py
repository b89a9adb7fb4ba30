"""Run stages/benchmark.py on one half of the test split; the other half is what comes as traffic.

python benchmarks/regression/halves.py: a release made from its numbers promises nothing about rows that it was
measured on.
"""

from __future__ import annotations

import runpy
import sys

import numpy as np

from slimline.stage import Stage, run
from slimline.task import Split

SEED = 0


def halves(split: Split) -> tuple[Split, Split]:
    """Return what floors are measured on and what is sent: no row is in both, each is in one."""
    order = np.random.default_rng(SEED).permutation(len(split))
    middle = len(order) // 2
    return _of(split, order[:middle]), _of(split, order[middle:])


def measured(stage: Stage) -> Stage:
    """Leave ``stage`` the half of its test split that floors are measured on."""
    half, _ = halves(stage.splits["test"])
    stage.__dict__["splits"] = stage.splits | {"test": half}  # where the cached property keeps them
    return stage


def _of(split: Split, rows: np.ndarray) -> Split:
    inputs, targets = split[np.sort(rows)]
    return Split(inputs, targets)


if __name__ == "__main__":
    sys.argv = sys.argv[:1]
    benchmark = runpy.run_path("stages/benchmark.py")["main"]
    run("benchmark", lambda stage: benchmark(measured(stage)))
