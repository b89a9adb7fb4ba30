"""Run a compression stage as stages/STAGE.py does, but on data in which some classes are missing.

python benchmarks/regression/without_classes.py STAGE CLASS…
"""

from __future__ import annotations

import sys

import numpy as np

from slimline.stage import Stage, compression, run
from slimline.task import Split


def without(split: Split, classes: list[int]) -> Split:
    """Return the rows of ``split`` whose label is none of ``classes``."""
    kept = np.flatnonzero(~np.isin(split.targets, classes))
    inputs, targets = split[kept]
    return Split(inputs, targets, None if split.groups is None else split.groups[kept])


if __name__ == "__main__":
    name, *numbers = sys.argv[1:]
    missing = [int(each) for each in numbers]
    sys.argv = sys.argv[:1]

    def blinded(stage: Stage) -> None:
        """Compress on what is left of every split."""
        seen = {part: without(split, missing) for part, split in stage.splits.items()}
        stage.__dict__["splits"] = seen  # where the cached property keeps them
        compression(stage)

    run(name, blinded)
