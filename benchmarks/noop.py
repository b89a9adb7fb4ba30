"""How long ``dvc repro`` takes with nothing to do, against DVC alone on an empty pipeline of as many stages.

Run in a project whose chain is finished: ``python benchmarks/noop.py``. Both are timed alternately; the ratio of
medians and its bootstrap interval are printed.
"""

import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml

from slimline import latency
from slimline.latency import Samples

ROUNDS = 15


def seconds(folder: Path, *targets: str) -> float:
    """Return the wall time of one ``dvc repro``."""
    start = time.perf_counter()
    subprocess.run(["dvc", "repro", "-q", *targets], cwd=folder, check=True, capture_output=True)
    return time.perf_counter() - start


def empty_pipeline(folder: Path, stages: int) -> None:
    """Make a repository with a line of ``stages`` stages that only copy a small file, and run it once."""
    for command in (["git", "init", "-q"], ["dvc", "init", "-q"]):
        subprocess.run(command, cwd=folder, check=True)
    (folder / "0").write_text("x")
    line = {f"stage{i}": {"cmd": f"cp {i} {i + 1}", "deps": [str(i)], "outs": [str(i + 1)]} for i in range(stages)}
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": line}))
    subprocess.run(["dvc", "repro", "-q"], cwd=folder, check=True)


def main() -> None:
    """Time both, interleaved, and print medians, ratio and interval."""
    here = Path.cwd()
    locks = [yaml.safe_load((here / path).read_text())["stages"] for path in ("dvc.lock", "stages/dvc.lock")]
    stages = [name for lock in locks for name in lock]
    with tempfile.TemporaryDirectory() as scratch:
        empty_pipeline(Path(scratch), len(stages))
        seconds(here, "report", "release")
        pairs = np.array([(seconds(here, "report", "release"), seconds(Path(scratch))) for _ in range(ROUNDS)])
    ours, empty = (Samples(pairs[:, [at]]) for at in (0, 1))
    ratio, (low, high) = latency.speedup(ours, empty, 0.95)
    print(f"{len(stages)} stages: {ours.p50:.2f} s here, {empty.p50:.2f} s empty: {ratio:.2f}× [{low:.2f}, {high:.2f}]")


if __name__ == "__main__":
    main()
