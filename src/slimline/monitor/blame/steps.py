"""What each stage costs against the one before it, on the same rows, with intervals: pure arithmetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slimline import benchmark, intervals
from slimline.monitor.blame.chain import UNKNOWN, Chain, Indices, Outputs, Rows

Given = NDArray[np.bool_]
MARGIN = 0.02  # a share that moved by less than this has not drifted, however many rows say so


@dataclass(frozen=True)
class Share:
    """A share with its interval over so many rows."""

    value: float
    low: float
    high: float
    rows: int


@dataclass(frozen=True)
class Step:
    """A stage against ``before``, the one it was made from (the first stage has none).

    On the rows of one source: ``agreement`` of the two, and, where labels are known, the stage's ``accuracy`` and its
    ``loss`` (the share that the one before got right less its own, paired). None: no such rows.
    """

    stage: str
    before: str | None
    agreement: Share | None
    accuracy: Share | None
    loss: Share | None


def steps(chain: Chain, rows: Rows, confidence: float) -> list[Step]:
    """Return one Step a stage, in order."""
    found = []
    for before, stage in [(None, chain.teacher), *chain.steps]:
        agrees = None if before is None else chain.agree(rows, before, stage)
        found.append(
            Step(
                stage,
                before,
                None if agrees is None else _share(agrees, confidence),
                _share(chain.correct(rows, stage)[rows.known], confidence),
                None if before is None else loss(chain, rows, before, stage, confidence),
            )
        )
    return found


def loss(chain: Chain, rows: Rows, before: str, stage: str, confidence: float) -> Share | None:
    """Return the accuracy that ``stage`` lost from ``before`` on the rows with a label (Newcombe 1998, method 10)."""
    if not rows.known.any():
        return None
    a, b = chain.correct(rows, before)[rows.known], chain.correct(rows, stage)[rows.known]
    low, high = intervals.paired_drop(a, b, confidence)
    return Share(float(a.mean() - b.mean()), low, high, len(a))


def fall(now: NDArray[np.bool_], before: NDArray[np.bool_], confidence: float) -> Share | None:
    """Return how far the share of ``now`` lies below that of ``before``, which are other rows.

    Newcombe's square-and-add of two Wilson intervals (1998, Statistics in Medicine 17:873, method 10).
    """
    if not len(now) or not len(before):
        return None
    p, own = float(now.mean()), float(before.mean())
    low, high = intervals.share(now, confidence)
    base_low, base_high = intervals.share(before, confidence)
    drop = own - p
    down = ((own - base_low) ** 2 + (high - p) ** 2) ** 0.5
    up = ((base_high - own) ** 2 + (p - low) ** 2) ** 0.5
    return Share(drop, drop - down, drop + up, len(now))


def at_mix(hits: NDArray[np.bool_], groups: Indices, mix: Indices) -> NDArray[np.bool_]:
    """Return ``hits`` as they would be with another mix of groups: as many rows as their share is then known by.

    ``groups`` [reference rows] is each row's class, ``mix`` [rows] those of the window: each class counts as often as
    there (a stratified mean: its variance is Σ w²/n of a share's, Cochran 1977, Sampling Techniques, chapter 5). A
    class that the reference has no row of counts with the share of all.
    """
    share, spread = 0.0, 0.0
    for group, count in zip(*np.unique(mix, return_counts=True), strict=True):
        own = hits[groups == group]
        own, weight = (own if len(own) else hits), float(count) / len(mix)
        share += weight * float(own.mean())
        spread += weight**2 / len(own)
    rows = max(1, round(1 / spread))
    found: NDArray[np.bool_] = np.arange(rows) < round(share * rows)
    return found


def moved(chain: Chain, now: Outputs, reference: Outputs, confidence: float) -> list[str]:
    """Return in words how the teacher's answers differ from those on the reference rows; empty: they don't.

    Its confidence by the two samples' Kolmogorov–Smirnov distance less Smirnov's critical value (1948, Annals of
    Mathematical Statistics 19:279), and the share of each label by Wilson intervals, over all labels at once.
    """
    if not len(now):
        return []
    found, teacher = [], chain.teacher
    if chain.labels:
        columns = {"confidence": (chain.confidence(teacher, now), chain.confidence(teacher, reference))}
    else:
        columns = {f"output {at}": (now[:, at], reference[:, at]) for at in range(min(now.shape[1], 16))}
    for name, (a, b) in columns.items():
        distance = _distance(a, b)
        alpha = (1 - confidence) / len(columns)
        bound = float(np.sqrt(np.log(2 / alpha) / 2 * (1 / len(a) + 1 / len(b))))
        if distance - bound > MARGIN:
            found.append(f"the teacher's {name} (Kolmogorov–Smirnov distance {distance:.2f})")
    if chain.labels:
        found += _mix(chain.labels, chain.given(teacher, now), chain.given(teacher, reference), confidence)
    return found


def _mix(labels: Sequence[str], now: Given, reference: Given, confidence: float) -> list[str]:
    at = 1 - (1 - confidence) / len(labels)
    changed = []
    for index, label in enumerate(labels):
        a, b = now[:, index], reference[:, index]
        change = fall(a, b, at)
        if change and (change.low > MARGIN or change.high < -MARGIN):
            changed.append(f"{label} {b.mean():.0%} → {a.mean():.0%}")
    return [f"the mix of labels ({', '.join(changed)})"] if changed else []


def _distance(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    places = np.concatenate([a, b])
    below = [np.searchsorted(np.sort(each), places, side="right") / len(each) for each in (a, b)]
    return float(np.abs(below[0] - below[1]).max())


def classes(chain: Chain, rows: Rows, before: str, stage: str, confidence: float) -> list[dict[str, object]]:
    """Return the labels that ``stage`` harmed most, the worst first: recall from the one before it to its own.

    Without any label known, the answer of the one before stands for the truth.
    """
    if not chain.labels or chain.many or not len(rows):
        return []
    at = np.flatnonzero(rows.known) if rows.known.any() else np.arange(len(rows))
    truth = rows.labels[at] if rows.known.any() else rows.outputs[before][at].argmax(1)
    hits = [rows.outputs[each][at].argmax(1) == truth for each in (before, stage)]
    table = benchmark.per_class(chain.labels, hits[0], hits[1], truth, confidence)
    listed = [{"label": label, **row} for label, row in table.items()]
    return sorted(listed, key=lambda row: -row["drop"] * row["rows"])


def examples(chain: Chain, rows: Rows, before: str, stage: str, most: int = 20) -> list[dict[str, object]]:
    """Return rows whose answer ``stage`` spoiled, those first of which the one before was surest.

    Where labels are known: it turned a right answer into a wrong one; elsewhere it changed the answer.
    """
    flipped = ~chain.agree(rows, before, stage)
    if rows.known.any():
        flipped &= rows.known & chain.correct(rows, before)
    places = np.flatnonzero(flipped)
    if not chain.labels:
        return [{"id": rows.ids[place]} for place in places[:most]]
    if len(places):
        places = places[np.argsort(-chain.confidence(before, rows.outputs[before][places]), kind="stable")]
    return [_example(chain, chain.labels, rows, before, stage, int(place)) for place in places[:most]]


def _example(chain: Chain, labels: Sequence[str], rows: Rows, before: str, stage: str, place: int) -> dict[str, object]:
    said = {}
    for each in (before, stage):
        (given,) = chain.given(each, rows.outputs[each][place : place + 1])
        said[each] = ",".join(label for label, yes in zip(labels, given, strict=True) if yes)
    truth = int(rows.labels[place])
    return {
        "id": rows.ids[place], "before": said[before], "after": said[stage],
        "label": None if truth == UNKNOWN else labels[truth],
    }  # fmt: skip


def _share(hits: NDArray[np.bool_], confidence: float) -> Share | None:
    if not len(hits):
        return None
    low, high = intervals.share(hits, confidence)
    return Share(float(hits.mean()), low, high, len(hits))


def excess(losses: Mapping[str, Share | None], base: Mapping[str, float]) -> str:
    """Return the stage that lost most beyond what ``base`` says that it may."""
    over = {stage: each.value - base.get(stage, 0.0) for stage, each in losses.items() if each is not None}
    return max(over, key=lambda stage: over[stage])
