"""How fast an allowance of bad requests is used up: a sequential test that decides, and burn rates that warn.

Bad requests come in bursts, one slow moment making many of them, so single requests aren't independent trials. What is
tested is the mean share of good ones over blocks of ten seconds: a burst is one bad block, and it takes several in a
row. The test is an e-detector on that share (``sequential``), so false alarms are ``run_length`` blocks with traffic
apart at least, on average.

The burn rate of a window is the share of bad requests in it over the share that is allowed. Both windows of a pair
must burn: the long one says that it matters, the short one that it still goes on (Beyer et al. 2018, The Site
Reliability Workbook, chapter 5).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimline.monitor.sequential import Detector, factors
from slimline.monitor.standing import State

Floats = NDArray[np.float64]

BLOCK = 10.0
MINUTE = 60.0
MINUTES = {"5m": 5, "30m": 30, "1h": 60, "6h": 360}
PAIRS = (("5m", "1h", 14.4), ("30m", "6h", 6.0))
FEW = 20  # requests in the short window below which burn rates say nothing
WATCH = 0.01  # of the threshold
LATE = 120.0  # seconds that an event may lie behind; further back the clock was set, and the windows begin anew


class Burn:
    """Watches that at most ``allowed`` of the requests are bad; ``state`` holds since ``since`` (Unix seconds).

    An alarm holds for five minutes at least, until the last five had no more bad requests than allowed.
    """

    def __init__(self, allowed: float, run_length: float) -> None:
        self.allowed = allowed
        self.detector = Detector([1.0], run_length)
        self.state = State.OK
        self.since = 0.0
        self.count = 0
        self.peak = 0.0
        self._block = [0.0, 0.0, 0.0]  # its number, requests, bad ones
        self._minutes: deque[list[float]] = deque(maxlen=MINUTES["6h"])
        self._now = 0.0

    def feed(self, time: Floats, total: Floats, bad: Floats) -> None:
        """Take requests [n] (their number at each moment) and the bad ones among them."""
        if not len(time):
            return
        if self._now - float(time[-1]) > LATE:
            self._now, self._block = 0.0, [0.0, 0.0, 0.0]
            self._minutes.clear()
        self.since = self.since or float(time[0])
        self.count += int(total.sum())
        self._now = max(self._now, float(time[-1]))
        for minute, requests, slow in zip(*_summed(time, MINUTE, total, bad), strict=True):
            self._count(minute, requests, slow)
        numbers, requests_, slow_ = _summed(np.maximum(time, self._block[0] * BLOCK), BLOCK, total, bad)
        if numbers[0] == self._block[0]:
            requests_[0] += self._block[1]
            slow_[0] += self._block[2]
        elif self._block[1]:
            numbers = np.concatenate(([self._block[0]], numbers))
            requests_ = np.concatenate(([self._block[1]], requests_))
            slow_ = np.concatenate(([self._block[2]], slow_))
        self._block = [float(numbers[-1]), float(requests_[-1]), float(slow_[-1])]
        self._test(numbers[:-1], requests_[:-1], slow_[:-1])

    def tick(self, now: float) -> None:
        """End the block and the windows that are over."""
        self._now = max(self._now, now)
        number, requests, bad = self._block
        if requests and now >= (number + 1) * BLOCK + 1.0:  # a second for events on their way
            self._block = [number + 1, 0.0, 0.0]
            self._test(np.array([number]), np.array([requests]), np.array([bad]))
        self._turn()

    def ratio(self, window: str) -> tuple[float, float]:
        """Return (bad requests, requests) in the last ``window``."""
        first = (self._now // MINUTE) - MINUTES[window] + 1
        rows = [each for each in self._minutes if each[0] >= first]
        return sum(each[2] for each in rows), sum(each[1] for each in rows)

    def rate(self, window: str) -> float:
        """Return the burn rate over ``window``; 0 without traffic."""
        bad, requests = self.ratio(window)
        return bad / requests / self.allowed if requests else 0.0

    @property
    def evidence(self) -> float:
        """The e-value now, or of the alarm while it holds."""
        return self.peak if self.state is State.REGRESSED else self.detector.evidence

    def dump(self) -> dict[str, Any]:
        """Return its state as plain JSON data."""
        return {
            "detector": self.detector.dump(), "state": int(self.state), "since": self.since, "count": self.count,
            "peak": self.peak, "block": self._block, "minutes": list(self._minutes), "now": self._now,
        }  # fmt: skip

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on from what ``dump`` returned."""
        self.detector.restore(saved["detector"])
        self.state, self.since, self.count = State(saved["state"]), float(saved["since"]), int(saved["count"])
        self.peak, self._block, self._now = float(saved["peak"]), list(saved["block"]), float(saved["now"])
        self._minutes = deque((list(each) for each in saved["minutes"]), MINUTES["6h"])

    def _test(self, numbers: Floats, requests: Floats, bad: Floats) -> None:
        if not len(numbers):
            return
        good = 1.0 - bad / requests
        alarms = self.detector.feed(factors(good, np.full(len(good), 1.0 - self.allowed))[:, None, :])
        if alarms:
            self.peak = float(self.detector.at_alarm.sum())
            if self.state is not State.REGRESSED:
                self.state, self.since = State.REGRESSED, (float(numbers[alarms[0]]) + 1) * BLOCK
        self._turn()

    def _turn(self) -> None:
        if self.state is State.REGRESSED:
            bad, requests = self.ratio("5m")
            if self._now - self.since < MINUTES["5m"] * MINUTE or not requests or bad > self.allowed * requests:
                return
        burning = any(
            self.ratio(short)[1] >= FEW and min(self.rate(short), self.rate(long)) > limit
            for short, long, limit in PAIRS
        )
        gathering = self.detector.evidence >= WATCH * self.detector.threshold
        state = State.WATCH if burning or gathering else State.OK
        if state is not self.state:
            self.state, self.since = state, self._now

    def _count(self, minute: float, requests: float, bad: float) -> None:
        for each in reversed(self._minutes):
            if each[0] == minute:
                each[1] += requests
                each[2] += bad
                return
            if each[0] < minute:
                break
        self._minutes.append([minute, requests, bad])


def _summed(time: Floats, width: float, total: Floats, bad: Floats) -> tuple[Floats, Floats, Floats]:
    """Return (number, requests, bad ones) of each stretch of ``width`` seconds that has some, oldest first."""
    numbers, places = np.unique(time // width, return_inverse=True)
    return numbers, np.bincount(places, total).astype(np.float64), np.bincount(places, bad).astype(np.float64)
