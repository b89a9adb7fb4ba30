"""Speed, measured so that models compare: all interleaved in one run, shuffled each round, after a warm-up.

A pause before each timed group lets the last runtime's threads go to sleep. Ratios pair the groups of one
round, with a bootstrap interval over rounds: what disturbs a machine for a while disturbs both sides of a pair.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from slimline import intervals
from slimline.predictor import Arrays

if TYPE_CHECKING:
    from slimline.task import Split

PAUSE_S = 0.01
MOST_S = 60.0  # of one measurement: models so slow that it would take longer get fewer calls
GROUP_S = 1.0  # of one group's calls
LEAST = 5  # rounds
TRIES = 3
STEADY = 1.15


@dataclass(frozen=True)
class Samples:
    """Seconds of each call: ``seconds`` is rounds × repeats."""

    seconds: NDArray[np.float64]

    def percentiles_ms(self) -> dict[str, float]:
        """Return p50, p95 and p99 in milliseconds over all calls."""
        values = np.percentile(self.seconds * 1e3, [50, 95, 99])
        return {name: round(float(value), 6) for name, value in zip(("p50", "p95", "p99"), values, strict=True)}

    @property
    def p50(self) -> float:
        """Median seconds of one call."""
        return float(np.median(self.seconds))


Measured = dict[str, dict[int, Samples]]


def measure(
    models: Mapping[str, Callable[[Arrays], Any]],
    inputs: Mapping[int, Arrays | Sequence[Arrays]],
    *,
    rounds: int,
    repeats: int,
    seed: int = 0,
    pause: float = PAUSE_S,
    progress: Callable[[], None] = lambda: None,
    most: float = MOST_S,
    clock: Callable[[], float] | None = None,
) -> Measured:
    """Time every model on every batch, ``repeats`` calls a group and one group a round.

    ``models`` are {name: call}, ``inputs`` {batch size: arrays}, or several batches that the calls take in turn: rows
    of several lengths. ``pause`` seconds come before each group. Where that would take more than about ``most``
    seconds, the slow batches' groups get fewer calls (of every model as many), then there are fewer rounds, ``LEAST``
    at least. ``clock`` gives seconds, None the wall's; ``time.process_time`` leaves out what others on the machine
    take, where a call has one thread. Returns {name: {batch size: Samples}}.
    """
    given = {batch: [arrays] if isinstance(arrays, Mapping) else list(arrays) for batch, arrays in inputs.items()}
    jobs = [(name, batch) for name in models for batch in inputs]
    took = {job: _warm_up(models[job[0]], given[job[1]], min(5, repeats), most * GROUP_S / MOST_S) for job in jobs}
    calls = dict.fromkeys(inputs, repeats)
    if rounds * sum((repeats + 1) * took[job] for job in jobs) > most:
        slowest = {batch: max(took[name, batch] for name in models) for batch in inputs}
        calls = {batch: int(min(max(GROUP_S / slowest[batch], 1), repeats)) for batch in inputs}
        enough = int(most / sum((calls[batch] + 1) * took[name, batch] for name, batch in jobs))
        rounds = min(max(enough, LEAST), rounds)
    seconds: dict[tuple[str, int], list[list[float]]] = {job: [] for job in jobs}
    order = random.Random(seed)  # noqa: S311  (an order of timings, no secret)
    clock = clock or time.perf_counter
    for turn in range(rounds):
        order.shuffle(jobs)
        for name, batch in jobs:
            call, batches = models[name], given[batch]
            time.sleep(pause)
            call(batches[0])
            group = []
            for at in range(turn * calls[batch], (turn + 1) * calls[batch]):
                arrays = batches[at % len(batches)]
                start = clock()
                call(arrays)
                group.append(clock() - start)
            seconds[name, batch].append(group)
        progress()
    return {name: {batch: Samples(np.array(seconds[name, batch])) for batch in inputs} for name in models}


def _warm_up(call: Callable[[Arrays], Any], batches: Sequence[Arrays], count: int, most: float) -> float:
    """Run a model so often, or twice where that takes ``most`` seconds; return the seconds of its quickest call."""
    clock = time.perf_counter
    began, quickest = clock(), float("inf")
    for at in range(count):
        start = clock()
        call(batches[at % len(batches)])
        quickest = min(quickest, clock() - start)
        if at and clock() - began > most:
            break
    return quickest


def speedup(base: Samples, other: Samples, confidence: float, seed: int = 0) -> tuple[float, list[float]]:
    """Return (base's p50 / other's p50, [low, high]); the interval is a bootstrap over paired rounds."""
    ratio = base.p50 / other.p50
    a, b = np.median(base.seconds, axis=1), np.median(other.seconds, axis=1)
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, len(a), (1000, len(a)))
    draws = np.median(a[rows], axis=1) / np.median(b[rows], axis=1)
    low, high = intervals.percentile(draws.tolist(), confidence)
    return ratio, [min(low, ratio), max(high, ratio)]


def table(samples: Measured, base: str, confidence: float) -> dict[str, dict[str, Any]]:
    """Return {model: latency_ms, throughput, and speed-up over ``base`` with its interval, each by batch size}."""
    found = {}
    for name, by_batch in samples.items():
        ratios = {batch: speedup(samples[base][batch], each, confidence) for batch, each in by_batch.items()}
        found[name] = {
            "latency_ms": {str(batch): each.percentiles_ms() for batch, each in by_batch.items()},
            "throughput": {str(batch): round(batch / each.p50, 1) for batch, each in by_batch.items()},
            "speedup": {str(batch): ratio for batch, (ratio, _) in ratios.items()},
            "speedup_ci": {str(batch): interval for batch, (_, interval) in ratios.items()},
        }
    return found


def steadiest(measurements: Callable[[], Measured], base: str, confidence: float) -> tuple[Measured, float]:
    """Measure up to ``TRIES`` times, until every speed-up over ``base`` is known well; return the best known.

    The second value is how far apart the ends of its widest interval are, as a ratio. A machine that others use can
    slow one model for a while; beyond ``STEADY`` what comes out says more about them than about the model. What took
    ``MOST_S`` seconds isn't taken again.
    """
    began = time.monotonic()
    best: tuple[Measured, float] | None = None
    for _ in range(TRIES):
        found = measurements()
        bounds = [
            speedup(found[base][batch], each, confidence)[1] for by in found.values() for batch, each in by.items()
        ]
        spread = max(high / low for low, high in bounds)
        if best is None or spread < best[1]:
            best = found, spread
        if spread <= STEADY or time.monotonic() - began > MOST_S:
            break
    assert best is not None  # noqa: S101  (TRIES is at least 1)
    return best


def typical_batches(split: Split, batch_sizes: Sequence[int], count: int, seed: int) -> dict[int, list[Arrays]]:
    """Return {batch size: ``count`` batches of rows drawn from ``split``}, each as long as its longest row.

    So what is timed has the data's own lengths, short texts and long ones, as requests have.
    """
    rng = np.random.default_rng(seed)
    return {size: [split[rng.integers(0, len(split), size)][0] for _ in range(count)] for size in batch_sizes}


def sample_inputs(signature: Mapping[str, Any], batch_sizes: Sequence[int], rows: Arrays) -> dict[int, Arrays]:
    """Return {batch size: arrays} cut from real ``rows`` (repeated when there are too few) for each model input."""
    batches: dict[int, Arrays] = {}
    for size in batch_sizes:
        batches[size] = {}
        for spec in signature["inputs"]:
            array = rows[spec["name"]]
            batches[size][spec["name"]] = np.ascontiguousarray(np.resize(array, (size, *array.shape[1:])))
    return batches
