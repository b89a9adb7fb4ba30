"""Which stage became slow, or whether the process around the model did: every stage timed again, interleaved.

The speed of a machine cancels in ratios, so a stage is judged by its time against the one before it, then and now.
Whether production is slow is judged by its own requests against the objective.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf

import numpy as np

from slimline import goldens, intervals, latency
from slimline.errors import ArtifactError, PluginError
from slimline.monitor.blame.chain import Chain
from slimline.monitor.blame.quality import Opinion
from slimline.monitor.blame.window import Window
from slimline.monitoring import objectives
from slimline.predictor import Predictor

ROUNDS, REPEATS = 20, 10
SLOWER = 1.5  # times as long, on the interval's good end: less than that differs from machine to machine
BURN = 6.0  # times the share that may be slow: what pages within the hour (Site Reliability Workbook, chapter 5)
PARTS = ("decode", "queue", "predict", "encode")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Timed:
    """A stage's latency at ``batch``, the benchmark's smallest, in milliseconds.

    ``p50``: here and now, with the interval of its median over rounds; ``benchmark``: p50 when the release was made,
    ``ratio`` how many times as long, against the one before it, the stage takes now as it did then, with its interval.
    """

    stage: str
    p50: float
    interval: tuple[float, float]
    benchmark: float | None
    ratio: tuple[float, float, float] | None
    batch: int = 1


def replay(chain: Chain, confidence: float, rounds: int = ROUNDS) -> list[Timed]:
    """Time every stage on golden rows at the benchmark's smallest batch, all interleaved.

    Runtime and threads are those that the benchmark used.

    Where one of the runtimes isn't there nothing is timed: other ones compare with no benchmark.
    """
    inputs, _ = goldens.read(chain.directory, chain.last)
    batch = min((int(each) for each in chain.measured(chain.last)["latency_ms"]), default=1)
    predictors: dict[str, Predictor] = {}
    try:
        for stage in chain.line:
            predictors[stage] = chain.predictor(stage, int(chain.measured(stage).get("threads", 1)))
        batches = latency.sample_inputs(predictors[chain.last].signature, [batch], inputs)
        calls = {stage: predictor.runtime.run for stage, predictor in predictors.items()}
        samples = latency.measure(calls, batches, rounds=rounds, repeats=REPEATS)
    except (PluginError, ArtifactError) as error:
        log.warning("%s; the stages aren't timed", error)
        return []
    finally:
        for predictor in predictors.values():
            predictor.close()
    return _timed(chain, {stage: by[batch] for stage, by in samples.items()}, str(batch), confidence)


def _timed(chain: Chain, samples: Mapping[str, latency.Samples], batch: str, confidence: float) -> list[Timed]:
    then = {stage: chain.measured(stage)["latency_ms"].get(batch, {}).get("p50") for stage in chain.line}
    before = chain.before
    found = []
    for stage in chain.line:
        own = samples[stage]
        low, high = intervals.median(np.median(own.seconds, axis=1) * 1e3, confidence)
        ratio = None
        if stage in before and then[stage] and then[before[stage]]:
            value, (least, most) = latency.speedup(own, samples[before[stage]], confidence)
            was, lowest, highest = _benchmarked(chain, before[stage], stage, batch)
            ratio = (value / was, least / highest, most / lowest)
        found.append(Timed(stage, own.p50 * 1e3, (low, high), then[stage], ratio, int(batch)))
    return found


def _benchmarked(chain: Chain, before: str, stage: str, batch: str) -> tuple[float, float, float]:
    """Return how many times as long as the one before it a stage took in the benchmark, with what is known of it.

    Both were measured against the teacher, so the ends of both intervals count.
    """
    rows = [chain.measured(each) for each in (before, stage)]
    p50 = [row["latency_ms"][batch]["p50"] for row in rows]
    was = float(p50[1] / p50[0])
    known = [row.get("speedup_ci", {}).get(batch) for row in rows]
    if not all(known):
        return was, was, was
    (low, high), (own_low, own_high) = known
    return was, min(was, low / own_high), max(was, high / own_low)


def judge(chain: Chain, window: Window, timed: list[Timed], *, alarmed: bool, confidence: float) -> Opinion:
    """Say what made requests slow. ``alarmed``: a signal of latency says that they are."""
    slow = _slow(chain, window, confidence, 1.0 if alarmed else BURN)
    slower = max((each for each in timed if each.ratio), key=_least, default=None)
    if not slow and not alarmed:
        return Opinion(
            "nothing", f"{len(window.batch)} requests keep their time" if len(window.batch) else "no requests"
        )
    if slower is not None and _least(slower) > SLOWER and slower.ratio is not None:
        value, low, high = slower.ratio
        return Opinion(
            "stage",
            f"{slower.stage} takes {value:.1f} [{low:.1f}, {high:.1f}] times as long against the stage before it as "
            f"benchmarked{slow and '; ' + slow}",
            slower.stage,
        )
    last = timed[-1] if timed else None
    replayed = ""
    if last is not None and last.benchmark:
        replayed = (
            f"replayed, the model's latency p50, batch {last.batch}, is {last.p50:.2g} ms "
            f"(benchmark {last.benchmark:.2g} ms)"
        )
    grown = _grown(window)
    return Opinion("serving", "; ".join(each for each in (slow, replayed, grown) if each))


def _least(each: Timed) -> float:
    return each.ratio[1] if each.ratio else -inf


def _slow(chain: Chain, window: Window, confidence: float, burn: float) -> str:
    """Say that ``burn`` times more requests than allowed miss the objective, or return the empty string."""
    allowed = 1 - chain.objectives.latency_share
    limits = objectives.latency(chain.objectives, chain.measured(chain.last)["latency_ms"])
    for part, limit in limits.items():
        seconds = window.latency.get(part)
        if seconds is None or not len(seconds):
            continue
        misses = seconds > limit
        low, _ = intervals.share(misses, 1 - (1 - confidence) / len(limits))
        if low > burn * allowed:
            median = float(np.median(seconds)) * 1e3
            return (
                f"{misses.mean():.1%} of {len(misses)} requests took more than {limit * 1e3:.3g} ms in {part} "
                f"(median {median:.3g} ms; {allowed:.1%} may)"
            )
    return ""


def _grown(window: Window) -> str:
    """Say where the time of a request goes."""
    medians = {part: float(np.median(window.latency[part])) * 1e3 for part in PARTS if part in window.latency}
    if not medians:
        return ""
    most = max(medians, key=lambda part: medians[part])
    return f"a request spends most in {most} (median {medians[most]:.3g} ms)"
