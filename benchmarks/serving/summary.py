"""From repeated runs to metrics/serving.json: medians, ratios with intervals, and what was aimed at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from slimline import intervals

FLOOR = "onnxruntime"
LOAD = "load"
Runs = Mapping[str, Sequence[Mapping[str, Any]]]  # by variant, one a repeat


@dataclass(frozen=True)
class Goal:
    """``own`` over ``other`` of ``what`` at ``row``: at most, or at least, ``bound``. None: over its own p50."""

    model: str
    own: str
    other: str | None
    row: str
    what: str
    bound: float
    at_least: bool = False


PACKAGED, ALONE = "slimline in bentoml", "slimline"
STARLETTES = ("starlette", "starlette, uvloop")
BENTOML = ("bentoml", "bentoml, batchable")
READY_S = 3.0
GOALS = (
    Goal("small", PACKAGED, "bentoml", "1", "p50_ms", 0.65),
    Goal("small", ALONE, "bentoml", "1", "p50_ms", 0.65),
    *(Goal("small", own, other, "1", "p50_ms", 1.7) for own in (PACKAGED, ALONE) for other in STARLETTES),
    *(Goal("encoder", own, "starlette", "1", "p50_ms", 1.1) for own in (PACKAGED, ALONE)),
    *(Goal("small", PACKAGED, other, "32", "throughput", 2.0, at_least=True) for other in BENTOML),
    *(Goal("small", ALONE, other, "32", "throughput", 2.5, at_least=True) for other in STARLETTES),
    Goal("small", "slimline v2", "triton, json", "32", "throughput", 1.0, at_least=True),
    Goal("small", "slimline v2, binary", "triton, binary", "32", "throughput", 1 / 1.5, at_least=True),
    *(Goal("small", own, None, LOAD, "p99_ms", 3.0) for own in (PACKAGED, ALONE)),
    Goal("small", ALONE, "slimline, no events or metrics", "32", "throughput", 0.95, at_least=True),
)


def ratio(own: Sequence[float], other: Sequence[float]) -> list[float]:
    """Return [low, median, high] of own/other over repeats, a paired bootstrap of 95%."""
    pairs = np.array(own) / np.array(other)
    low, high = intervals.median(pairs, 0.95)
    return [low, float(np.median(pairs)), high]


def table(runs: Runs) -> dict[str, Any]:
    """Return {variant: {row: medians, ready_s, torch, added_us, ratios to REFERENCES}}.

    ``added_us`` is what a request costs beyond the runtime: at one client the median's time, at many the time between
    two answers, since the server's CPU is busy all along.
    """
    floor = runs[FLOOR]
    found: dict[str, Any] = {}
    for name, repeats in runs.items():
        rows = list(repeats[0]["rows"])
        own: dict[str, Any] = {row: _medians([each["rows"][row] for each in repeats]) for row in rows}
        own["added_us"] = {
            "1": 1e3 * (own["1"]["p50_ms"] - _medians([each["rows"]["1"] for each in floor])["p50_ms"]),
            "32": 1e6 / own["32"]["throughput"] - 1e6 / _medians([each["rows"]["32"] for each in floor])["throughput"],
        }
        if name != FLOOR:
            own["ready_s"] = float(np.median([each["ready_s"] for each in repeats]))
            own["torch"] = any(each["torch"] for each in repeats)
            own["waited"] = float(np.median([each["waited"] for each in repeats]))
        own["ratios"] = {
            other: {
                row: {what: ratio(_all(repeats, row, what), _all(runs[other], row, what)) for what in WHATS}
                for row in rows
                if row in runs[other][0]["rows"]
            }
            for other in REFERENCES
            if other in runs and other != name
        }
        found[name] = own
    return found


WHATS = ("p50_ms", "throughput")
REFERENCES = ("starlette", "starlette, uvloop", "bentoml", "triton, json", "triton, binary")


def _medians(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {what: float(np.median([row[what] for row in rows])) for what in rows[0]}


def _all(repeats: Sequence[Mapping[str, Any]], row: str, what: str) -> list[float]:
    return [each["rows"][row][what] for each in repeats]


def goals(models: Mapping[str, Runs]) -> list[dict[str, Any]]:
    """Return each goal with the ratio measured ([low, median, high]) and whether it is met; None where nobody ran it.

    Behind them stand the seconds until our servers were ready, and whether any had torch in its process.
    """
    found = []
    for goal in GOALS:
        runs = models.get(goal.model, {})
        other, what = (goal.own, "p50_ms") if goal.other is None else (goal.other, goal.what)
        measured, met = None, None
        if goal.own in runs and other in runs:
            measured = ratio(_all(runs[goal.own], goal.row, goal.what), _all(runs[other], goal.row, what))
            met = measured[1] >= goal.bound if goal.at_least else measured[1] <= goal.bound
        found.append(
            {"model": goal.model, "variant": goal.own, "of": goal.other or "its p50", "clients": goal.row,
             "what": goal.what, "bound": round(goal.bound, 3), "at_least": goal.at_least, "ratio": measured, "met": met}
        )  # fmt: skip
    return [*found, *(_start(models, own) for own in (PACKAGED, ALONE))]


def _start(models: Mapping[str, Runs], own: str) -> dict[str, Any]:
    """Return what a server's starts were like: [least, median, most] seconds over every model and repeat."""
    repeats = [each for runs in models.values() for each in runs.get(own, ())]
    seconds = sorted(each["ready_s"] for each in repeats)
    torch = any(each["torch"] for each in repeats)
    found = [seconds[0], float(np.median(seconds)), seconds[-1]] if seconds else None
    return {"variant": own, "what": "ready_s", "bound": READY_S, "at_least": False, "ready_s": found, "torch": torch,
            "met": None if found is None else found[2] <= READY_S and not torch}  # fmt: skip
