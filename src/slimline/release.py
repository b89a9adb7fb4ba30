"""The deployable unit: the exported chain, a card, golden answers, references, and the verdict. Needs no torch.

A release's revision is the digest of its directory, so it names every byte in it.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from slimline import benchmark, goldens, manifest, monitoring
from slimline.features import input_features
from slimline.monitoring.objectives import objectives
from slimline.predictor import Predictor

if TYPE_CHECKING:
    from slimline.gate import Check
    from slimline.task import Split

FORMAT = 1
FOLDER = Path("release")
GOLDENS = 16
REFERENCES = 2000


def build(
    target: Path,
    exports: Path,
    chain: Sequence[str],
    measured: Mapping[str, Any],
    params: Mapping[str, Any],
    validation: Split,
    verdict: Sequence[Check],
) -> str:
    """Write a release directory whole or not at all and return its revision.

    ``chain`` lists the exported stages in order, the last one being what is served. Goldens and references are rows
    of the validation split: the test split leaves the project in numbers only.
    """
    last = chain[-1]
    with manifest.sealed(target) as scratch:
        answers: dict[str, Any] = {}
        golden: dict[str, Any] = {}
        head, references = validation.head(GOLDENS), validation.head(REFERENCES)
        for stage in chain:
            folder = scratch / "chain" / stage
            shutil.copytree(exports / stage, folder)
            runtime = measured["stages"][stage].get("runtime", "auto")
            predictor = Predictor(folder, runtime, threads=1)
            golden[f"output/{stage}"] = goldens.outputs(predictor, head.inputs)
            answers[f"output/{stage}"] = benchmark.of_split(
                predictor.predict, references, predictor.runtime_name
            ).astype(np.float32)
            predictor.close()
        golden |= {f"input/{name}": array for name, array in head.inputs.items()}
        np.savez_compressed(scratch / "golden.npz", targets=head.targets, **golden)
        means = {
            f"input_mean/{name}": np.asarray(array).mean(0, dtype=np.float64)
            for name, array in references.inputs.items()
        }
        seen = {f"feature/{name}": values for name, values in input_features(references.inputs).items()}
        arrays: dict[str, Any] = answers | means | seen
        np.savez_compressed(scratch / "reference.npz", targets=references.targets, **arrays)
        monitoring.write(scratch / "monitoring", objectives(params, measured, last), params["task"]["name"])
        manifest.write_json(
            scratch / "card.json",
            {
                "format": FORMAT,
                "task": params["task"],
                "last": last,
                "chain": list(chain),
                "digests": {stage: manifest.digest(exports / stage) for stage in chain},
                "params": dict(params),
                "benchmark": dict(measured),
                "verdict": {
                    "passed": all(check.ok for check in verdict),
                    "checks": [asdict(check) for check in verdict],
                },
                "rows": {"split": "validation", "golden": len(head), "reference": len(references)},
            },
        )
    return manifest.digest(target)
