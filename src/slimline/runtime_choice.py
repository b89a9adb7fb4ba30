"""Which runtimes can run an export here, and which of them is taken: ``target.runtime: auto``. Needs no torch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from statistics import geometric_mean
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slimline.latency import Samples

AUTO = "auto"
DEFAULT = "onnxruntime"
BY_ROWS = "onnxruntime-rows"
OTHERS = {BY_ROWS: "onnxruntime", "openvino": "openvino", "openvino-bf16": "openvino"}  # runtime: the package it needs
GAIN = 1.02  # a runtime takes the default's place only where it is faster by more than runs differ


def default(runtime: str) -> str:
    """Return the runtime that stands for ``target.runtime`` where none was chosen by measurement yet."""
    return DEFAULT if runtime == AUTO else runtime


def candidates(runtime: str, threads: int) -> list[str]:
    """Return the runtimes to measure: the one named, or for ``auto`` all that run ONNX files on this machine's CPU.

    One thread has nobody to share rows with.
    """
    if runtime != AUTO:
        return [runtime]
    others = (name for name, package in OTHERS.items() if find_spec(package))
    return [DEFAULT, *(name for name in others if threads > 1 or name != BY_ROWS)]


def callers(runtime: str) -> int:
    """Return how many threads may ask a runtime at once: one a core of those that take several, else one."""
    return len(os.sched_getaffinity(0)) if runtime in {DEFAULT, *OTHERS} else 1


def precision(runtime: Any) -> dict[str, str]:
    """Return {"precision": what a loaded runtime really computes float layers in} where it says so."""
    return {"precision": runtime.computes_in} if hasattr(runtime, "computes_in") else {}


def distinct(runtimes: Sequence[str], precisions: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Return the runtimes without those that are an earlier one over again.

    ``precisions`` are {runtime: what ``precision`` says of it}: on a CPU without bfloat16 openvino-bf16 is openvino.
    """
    kept: list[str] = []
    for name in runtimes:
        same = (OTHERS.get(each) == OTHERS.get(name) and precisions[each] == precisions[name] for each in kept)
        if not (precisions[name] and any(same)):
            kept.append(name)
    return kept


def measured_with(card: Mapping[str, Any], stage: str) -> str:
    """Return the runtime that a release's stage was measured with, by the release's card."""
    runtime: str = card.get("benchmark", {}).get("stages", {}).get(stage, {}).get("runtime", DEFAULT)
    return runtime


def fits(drops: Mapping[str, float], default_drops: Mapping[str, float], limits: Mapping[str, float]) -> bool:
    """Return whether a runtime's answers keep the budget.

    ``drops`` are {metric: how far below the teacher} on validation rows. Where the default runtime is over the limit
    itself, another must be no worse.
    """
    return all(drops[metric] <= max(limit, default_drops[metric]) for metric, limit in limits.items())


def fastest(measured: Mapping[str, Mapping[int, Samples]], allowed: Mapping[str, bool]) -> str:
    """Return the runtime with the least median time, as the geometric mean over batch sizes; in doubt the first.

    ``measured`` is {runtime: {batch size: Samples}}, the default first; ``allowed`` says whose answers are good enough.
    """
    first, *others = measured
    chosen, best = first, GAIN
    for name in others:
        ratios = [measured[first][batch].p50 / own.p50 for batch, own in measured[name].items()]
        gain = geometric_mean(ratios)
        if allowed[name] and gain > best:
            chosen, best = name, gain
    return chosen
