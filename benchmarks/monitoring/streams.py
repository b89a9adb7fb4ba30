"""Many streams of rows at once through the detectors of the signals.

What a row does to a detector's bets is asked of the signal itself, once a test row; the recursion R ← (R + 1)·factor
then runs over all streams together, a hundred times as fast as one signal object a stream. What ``alarms_of`` says of
one stream shows whether both are the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from recorded import Recorded, Recordings

from slimline.monitor.accuracy import Accuracy
from slimline.monitor.agreement import Agreement
from slimline.monitor.baseline import Baseline
from slimline.monitor.drift import Drift
from slimline.monitor.estimate import Estimate
from slimline.monitor.sequential import Detector
from slimline.monitor.signal import Labelled, Predicted, Signal
from slimline.params import Monitor

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
NONE = -1


@dataclass(frozen=True, eq=False)
class Table:
    """``factors`` [recorded rows, streams × bets] of one detector; ``weights`` [streams × bets]."""

    factors: Floats
    weights: Floats
    threshold: float
    every: int


def signals(known: Baseline, params: Monitor) -> list[Signal]:
    """Return the four signals of quality, as the monitor makes them."""
    own = ("", "")
    return [
        Accuracy(known, own, params.run_length),
        Agreement(known, own, params.run_length, params.agreement_drop),
        Estimate(known, own, params.run_length),
        Drift(known, own, params.run_length, params.drift_rate),
    ]


def detectors(signal: Signal) -> list[Detector]:
    """Return the detectors of a signal of quality."""
    if isinstance(signal, Drift):
        return [group.detector for group in signal.groups.values()]
    assert isinstance(signal, Accuracy | Agreement | Estimate)
    return [signal.test.detector]


def batch(recordings: Recordings, known: Baseline, part: Recorded, rows: Rows, at: int) -> tuple[Predicted, Labelled]:
    """Return recorded rows as the monitor reads them: a request a row and a second, all sampled and labelled."""
    order = np.arange(len(rows))
    time = (at + order).astype(np.float64)
    stages = {"teacher": part.teacher[rows], known.stage: part.last[rows]}
    said = known.outputs(known.stage, part.last[rows])
    inputs = {name: array[rows] for name, array in part.inputs.items()}
    answers = said.argmax(1)
    unknown = np.full(len(rows), np.nan)
    return (
        Predicted(time, {}, said, answers, order, stages, order, inputs),
        Labelled(time, time, said, answers, recordings.labels[rows], unknown, stages, order),
    )


def tables(recordings: Recordings, known: Baseline, part: Recorded, params: Monitor) -> dict[str, list[Table]]:
    """Return {signal: its detectors' tables} for the recorded rows of one scenario."""
    found: dict[str, list[Table]] = {}
    for signal in signals(known, params):
        made: dict[int, list[Floats]] = {}
        for index, detector in enumerate(detectors(signal)):
            made[index] = []
            detector.feed = lambda rows, kept=made[index]: (kept.append(rows), [])[1]  # type: ignore[method-assign]
        for start in range(0, len(recordings.labels), 1000):
            rows = np.arange(start, min(start + 1000, len(recordings.labels)))
            predicted, labelled = batch(recordings, known, part, rows, start)
            signal.predicted(predicted)
            signal.labelled(labelled)
        found[signal.name] = []
        for index, detector in enumerate(detectors(signal)):
            factors = np.concatenate(made[index])
            found[signal.name].append(
                Table(factors.reshape(len(factors), -1), detector.weights.ravel(), detector.threshold, detector.every)
            )
    return found


def first_alarms(before: Table, after: Table, warm: Rows, rows: Rows) -> NDArray[np.int64]:
    """Return each stream's first alarm: NONE, or its row counted from the start of ``warm``.

    ``warm`` and ``rows`` [streams, n] are drawn from the recorded rows of ``before`` and ``after``.
    """
    streams = len(warm)
    found = np.full(streams, NONE)
    active = np.arange(streams)
    stakes = np.zeros((streams, len(before.weights)))
    at = 0
    for table, drawn in ((before, warm), (after, rows)):
        assert warm.shape[1] % table.every == 0
        for start in range(0, drawn.shape[1] - table.every + 1, table.every):
            stakes += 1.0
            for row in range(start, start + table.every):
                stakes *= table.factors[drawn[active, row]]
            at += table.every
            over = stakes @ table.weights >= table.threshold
            if over.any():
                found[active[over]] = at - 1
                active, stakes = active[~over], stakes[~over]
                if not len(active):
                    return found
    return found


def alarms_of(
    recordings: Recordings, known: Baseline, params: Monitor, parts: Iterator[tuple[Recorded, Rows]]
) -> Mapping[str, int]:
    """Return the first alarms of real signals fed one stream in batches of 250: what ``first_alarms`` must repeat."""
    own = signals(known, params)
    found: dict[str, int] = {}
    at = 0

    def heard(name: str, detector: Detector) -> Any:
        inner = type(detector).feed

        def feed(made: Floats) -> list[int]:
            alarms = inner(detector, made)
            if alarms:
                found[name] = min(found.get(name, alarms[0] + at), alarms[0] + at)
            return alarms

        return feed

    for signal in own:
        for detector in detectors(signal):
            detector.feed = heard(signal.name, detector)  # type: ignore[method-assign]
    for part, rows in parts:
        for start in range(0, len(rows), 250):
            chosen = rows[start : start + 250]
            predicted, labelled = batch(recordings, known, part, chosen, at)
            for signal in own:
                signal.predicted(predicted)
                signal.labelled(labelled)
            at += len(chosen)
    return {signal.name: found.get(signal.name, NONE) for signal in own}
