"""Whether scores still keep above their floors: the detector, what the last rows say, and when an alarm is over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimline.monitor.recent import Recent
from slimline.monitor.sequential import Detector, factors, interval
from slimline.monitor.standing import State

Floats = NDArray[np.float64]

SPAN = 1000
WATCH = 0.01  # of the threshold


class FloorTest:
    """Scores [rows] in [0, 1], each promised to be at least so much on average given what came before.

    The first stream tests all rows; with ``classes`` there is one more for each, which tests its rows alone against
    ``alone`` [classes], and all classes share half of the evidence. An alarm holds until the last 1,000 rows or more
    keep the promise on average. ``every`` rows make one step of the detector.
    """

    def __init__(self, threshold: float, alone: Floats | None = None, every: int = 1) -> None:
        self.alone = alone
        classes = 0 if alone is None else len(alone)
        weights = [0.5, *[0.5 / classes] * classes] if classes else [1.0]
        self.detector = Detector(weights, threshold, every=every)
        self.state = State.OK
        self.since = 0.0
        self.count = 0
        self.peak = 0.0
        self._recent = Recent(2, SPAN)
        self._after = Recent(1, SPAN)

    def feed(self, scores: Floats, promised: Floats, time: Floats, classes: NDArray[np.int64] | None = None) -> None:
        """Take rows; ``classes`` [rows] says whose they are (-1: of none)."""
        if not len(scores):
            return
        if not self.count:
            self.since = float(time[0])
        made = np.ones((len(scores), *self.detector.weights.shape))
        made[:, 0] = factors(scores, promised)
        if self.alone is not None and classes is not None:
            known = np.flatnonzero(classes >= 0)
            own = classes[known]
            made[known, 1 + own] = factors(scores[known], self.alone[own])
        alarms = self.detector.feed(made)
        self.count += len(scores)
        surplus = scores - promised
        self._recent.feed(np.stack([scores, promised], axis=1))
        if alarms:
            last = alarms[-1]
            self.peak = float(self.detector.at_alarm.sum())
            if self.state is not State.REGRESSED:
                self.since = float(time[alarms[0]])
            self.state = State.REGRESSED
            self._after.restart()
            self._after.feed(surplus[last + 1 :, None])
            return
        if self.state is State.REGRESSED:
            self._after.feed(surplus[:, None])
            if self._after.count < SPAN or self._after.sums[0] < 0:
                return
        self._turn(State.WATCH if self.detector.evidence >= WATCH * self.detector.threshold else State.OK, time[-1])

    def _turn(self, state: State, time: float) -> None:
        if state is not self.state:
            self.state, self.since = state, float(time)

    @property
    def evidence(self) -> float:
        """The e-value now, or of the alarm while it holds."""
        return self.peak if self.state is State.REGRESSED else self.detector.evidence

    @property
    def shares(self) -> Floats:
        """What each stream adds to ``evidence``."""
        return self.detector.at_alarm if self.state is State.REGRESSED else self.detector.shares

    @property
    def value(self) -> float | None:
        """The mean score of the last rows."""
        return float(self._recent.sums[0] / self._recent.count) if self._recent.count else None

    @property
    def promised(self) -> float | None:
        """The mean that was promised of the last rows."""
        return float(self._recent.sums[1] / self._recent.count) if self._recent.count else None

    def bounds(self, confidence: float) -> tuple[float, float]:
        """Return the confidence interval of ``value``."""
        return interval(float(self._recent.sums[0]), self._recent.count, confidence)

    def dump(self) -> dict[str, Any]:
        """Return its state as plain JSON data."""
        return {
            "detector": self.detector.dump(),
            "state": int(self.state),
            "since": self.since,
            "count": self.count,
            "peak": self.peak,
            "recent": self._recent.dump(),
            "after": self._after.dump(),
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on from what ``dump`` returned."""
        self.detector.restore(saved["detector"])
        self.state, self.since = State(saved["state"]), float(saved["since"])
        self.count, self.peak = int(saved["count"]), float(saved["peak"])
        self._recent.restore(saved["recent"])
        self._after.restore(saved["after"])
