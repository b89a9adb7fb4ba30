"""What production is held to: promises, calibration and reference rows, read from a release's directory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimline import manifest
from slimline.answers import Answers
from slimline.errors import ReleaseError
from slimline.monitor import calibration
from slimline.monitor.calibration import Calibration
from slimline.pipeline import ROOT
from slimline.promises import Promises, promises

Floats = NDArray[np.float64]
Outputs = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Baseline:
    """One release as the signals see it.

    ``stage`` answers requests. ``reference`` {stage: [rows, k]} holds what it and the teacher said on validation rows,
    as probabilities where the task has ``labels``, and ``targets`` [rows] their truth; ``features`` {name: [rows]} is
    how those rows' inputs look. ``calibration`` turns the confidence of ``stage`` into its chance to be right.
    ``teacher`` [rows, k] is what the teacher said of them, raw.
    """

    stage: str
    labels: tuple[str, ...] | None
    promises: Promises
    answers: Mapping[str, Answers]
    reference: Mapping[str, Outputs]
    targets: NDArray[Any]
    features: Mapping[str, NDArray[np.float32]]
    calibration: Calibration | None
    teacher: Outputs | None = None

    @property
    def many(self) -> bool:
        """Whether any of several labels may be the answer."""
        return self.labels is not None and self.answers[self.stage].many

    def outputs(self, stage: str, raw: Outputs) -> Outputs:
        """Return recorded raw outputs of ``stage`` [rows, k] as probabilities, where the task has labels."""
        own = self.answers[stage]
        return own.of({own.first: raw})[1]


def read(release: Path, agreement_drop: float, incumbent: Path | None = None) -> Baseline:
    """Read the baseline of ``release``; ``incumbent`` is the release that served before it.

    Raises ReleaseError naming the file and what it lacks.
    """
    card = manifest.read_json(release / "card.json")
    before = None
    try:
        if incumbent is not None:
            other = manifest.read_json(incumbent / "card.json")
            before = other["benchmark"]["stages"][other["last"]]
        stage = card["last"]
        chain = {name: manifest.read_json(release / "chain" / name / "signature.json") for name in card["chain"]}
        answers = {name: Answers(signature) for name, signature in chain.items()}
        labels = answers[stage].labels
        budget = {"confidence": 0.95} | dict(card["params"].get("budget") or {})
        promised = promises(
            card["benchmark"],
            stage,
            budget,
            card["verdict"]["checks"],
            labels,
            agreement_drop=agreement_drop,
            many=answers[stage].many,
            incumbent=before,
        )
    except (KeyError, TypeError) as error:
        raise ReleaseError(f"{release / 'card.json'}: no {error}; make the release again") from error
    arrays = _references(release / "reference.npz")
    kept = [name for name in dict.fromkeys([ROOT, stage]) if f"output/{name}" in arrays and name in answers]
    reference = {name: answers[name].of({answers[name].first: arrays[f"output/{name}"]})[1] for name in kept}
    targets = arrays["targets"]
    fitted = None
    if labels and stage in reference and targets.ndim == 1:
        right = reference[stage].argmax(1) == targets
        fitted = calibration.fit(reference[stage].max(1), right)
    features = {name.partition("/")[2]: values for name, values in arrays.items() if name.startswith("feature/")}
    raw = arrays[f"output/{ROOT}"] if ROOT in reference else None
    teacher = None if raw is None else raw.reshape(len(raw), -1)
    named = tuple(labels) if labels else None
    return Baseline(stage, named, promised, answers, reference, targets, features, fitted, teacher)


def _references(path: Path) -> dict[str, NDArray[Any]]:
    with manifest.arrays(path, ReleaseError) as arrays:
        if "targets" not in arrays:
            raise ReleaseError(f"{path}: no targets; make the release again")
        return dict(arrays)
