"""Golden requests: a release must answer here as it did when it was made. Needs no torch.

``golden.npz`` holds input rows and every stage's outputs for them. How near an answer must come depends on the CPU:
the same instructions and the same runtime run the same kernels, whose answers differ by rounding at most. Other CPUs
round elsewhere, and without VNNI the sum of two u8×s8 products may saturate at 16 bits, so there the answers
themselves must agree and their distance is judged loosely.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimline import benchmark, manifest, runtime_choice
from slimline.answers import Answers
from slimline.errors import GoldenError
from slimline.predictor import Predictor

FILE = "golden.npz"
SAME_CPU = 1e-3  # of the largest golden output: float sums in another order, by another number of threads
OTHER_CPU = 0.1  # of the golden outputs' root mean square, as a root mean square over the rows
MISSES = 1 / 16  # on another CPU so many answers may differ: rows whose two best classes are nearly level


@dataclass(frozen=True)
class Agreement:
    """How golden requests were answered.

    ``same_cpu``: this machine is of the benchmark's class. ``largest`` and ``rms``: distances from the golden outputs,
    as shares of their largest value and of their root mean square. ``answers``: rows with the same class first, or with
    the same labels above their thresholds where any of several may be; ``None`` where outputs aren't one score a label.
    """

    stage: str
    rows: int
    same_cpu: bool
    largest: float
    rms: float
    answers: int | None

    def __str__(self) -> str:
        cpu = "as measured" if self.same_cpu else "another class than measured"
        same = "" if self.answers is None else f", {self.answers} of {self.rows} answers the same"
        return (
            f"{self.rows} golden requests: largest difference {self.largest:.2g} of the largest output{same}; CPU {cpu}"
        )


def check(predictor: Predictor, release: Path, *, stage: str | None = None) -> Agreement:
    """Run the golden inputs of ``release`` through ``predictor`` and compare with the outputs of ``stage``.

    ``stage`` is the one the predictor runs, by default the release's last. Raises GoldenError saying by how much the
    answers differ, ArtifactError when golden.npz or card.json can't be read.
    """
    card = manifest.read_json(release / "card.json")
    stage = card["last"] if stage is None else stage
    inputs, golden = read(release, stage)
    found = outputs(predictor, inputs)
    if found.shape != golden.shape:
        raise GoldenError(
            f"{release}: {stage} answers golden requests with shape {list(found.shape)}, not {list(golden.shape)}"
        )
    runtime = runtime_choice.measured_with(card, stage)
    same = same_class(card["benchmark"].get("machine", {}), benchmark.machine(), runtime)
    agreement = compare(stage, found, golden, same_cpu=same, answers=Answers(predictor.signature))
    if mistake := _mistake(agreement):
        raise GoldenError(f"{release}: {stage} doesn't answer its golden requests: {mistake} ({agreement})")
    return agreement


def outputs(predictor: Predictor, inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """Return the first output for every golden row.

    Where threads share a batch's rows, each row goes alone: ranges found as a model runs would be those of a share,
    which another number of threads makes another one.
    """
    batch = 1 if predictor.runtime_name == runtime_choice.BY_ROWS else benchmark.BATCH
    return benchmark.outputs(predictor, inputs, batch)


def read(release: Path, stage: str) -> tuple[dict[str, NDArray[Any]], NDArray[Any]]:
    """Return ({input name: rows}, the outputs of ``stage``) of a release's golden.npz."""
    with manifest.arrays(release / FILE, GoldenError) as arrays:
        inputs = {name.removeprefix("input/"): arrays[name] for name in arrays if name.startswith("input/")}
        if f"output/{stage}" not in arrays:
            known = ", ".join(name.removeprefix("output/") for name in arrays if name.startswith("output/"))
            raise GoldenError(f"{release / FILE}: no stage {stage!r}; it holds {known}")
        return inputs, arrays[f"output/{stage}"]


def targets(release: Path) -> NDArray[Any]:
    """Return what is true of the golden rows. Raises GoldenError when golden.npz can't be read."""
    with manifest.arrays(release / FILE, GoldenError) as arrays:
        return arrays["targets"]


def same_class(measured: Mapping[str, Any], here: Mapping[str, Any], runtime: str = runtime_choice.DEFAULT) -> bool:
    """Return whether two machines run the same kernels: the same instructions that int8 uses, the same runtime."""
    package = runtime_choice.OTHERS.get(runtime, runtime)
    return all(measured.get(key) == here.get(key) for key in ("instructions", package))


def risk(measured: Mapping[str, Any], here: Mapping[str, Any]) -> str | None:
    """Return what to expect of int8 models where this machine's instructions differ from the benchmark's, or None."""
    missing = [each for each in measured.get("instructions", []) if each not in here.get("instructions", [])]
    if not missing:
        return None
    vnni = {"avx512_vnni", "avx_vnni", "amx_int8"}
    if vnni & set(missing) and not vnni & set(here.get("instructions", [])):
        return (
            f"this CPU has no {', '.join(missing)}, the benchmark's had: int8 is slower here, "
            "and sums of u8×s8 may saturate and change answers"
        )
    return f"this CPU has no {', '.join(missing)}, the benchmark's had: latencies measured there don't hold here"


def compare(stage: str, found: NDArray[Any], golden: NDArray[Any], *, same_cpu: bool, answers: Answers) -> Agreement:
    """Return the distance between two arrays of outputs, rows first, and how many rows ``answers`` reads alike."""
    a, b = found.astype(np.float64), golden.astype(np.float64)
    largest = float(np.max(np.abs(a - b)) / max(float(np.max(np.abs(b))), np.finfo(np.float32).tiny))
    rms = float(np.sqrt(np.mean((a - b) ** 2)) / max(float(np.sqrt(np.mean(b**2))), np.finfo(np.float32).tiny))
    classes = len(answers.labels or ()) > 1
    same = int(np.sum((answers.chosen(a) == answers.chosen(b)).all(1))) if classes else None
    return Agreement(stage, len(golden), same_cpu, largest, rms, same)


def _mistake(agreement: Agreement) -> str | None:
    # written so that NaN, which is near nothing, fails
    if agreement.same_cpu:
        return None if agreement.largest <= SAME_CPU else f"more than {SAME_CPU:g} of the largest output away"
    if not agreement.rms <= OTHER_CPU:
        return f"{agreement.rms:.2g} of their root mean square away, more than {OTHER_CPU:g}"
    if agreement.answers is not None and agreement.rows - agreement.answers > agreement.rows * MISSES:
        return f"{agreement.rows - agreement.answers} answers differ"
    return None
