"""How many rows get a label, and how long that takes: what accuracy by labels is worth."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np

from slimline.monitor.sequential import interval
from slimline.monitor.signal import Floats, Labelled, Predicted, Sample
from slimline.monitor.standing import Standing, State
from slimline.monitor.watched import Watched

CONFIDENCE = 0.99
SLICES = 24  # of the time that a label may take
STOPPED = 0.1  # of the labelled share that there was before
DELAYS = 500
QUANTILES = (0.5, 0.95)


class Coverage:
    """Counts rows and their labels by when the row was answered, in slices of time.

    Judged are the rows of one ``label_delay_hours``, those that are older than that by one at most. ``regressed``:
    their labelled share is below ``min_coverage`` with its whole interval. Where that is 0, a tenth of the share that
    older rows had stands in for it: nothing while no label ever came, and labels that stop coming are noticed.
    """

    name: ClassVar[str] = "coverage"

    def __init__(self, watched: Watched) -> None:
        self.own = watched.own
        self.asked = watched.params.min_coverage
        self.delay = watched.params.label_delay_hours * 3600
        self.width = self.delay / SLICES
        self.state = State.OK
        self.since = 0.0
        self._slices: dict[int, list[int]] = {}
        self._before = [0, 0]  # rows and labels of the slices that are no longer judged
        self._delays: deque[float] = deque(maxlen=DELAYS)
        self._now = 0.0

    def predicted(self, batch: Predicted) -> None:
        """Count rows."""
        self.since = self.since or float(batch.time[0])
        self._count(batch.time[batch.request], 0)

    def labelled(self, batch: Labelled) -> None:
        """Count labels, in the slice of their row."""
        self._count(batch.predicted, 1)
        self._delays.extend((batch.time - batch.predicted)[-DELAYS:].tolist())

    def tick(self, now: float) -> None:
        """Let go of what is too old to be judged; judge what is old enough."""
        self._now = now
        oldest = int((now - 2 * self.delay) // self.width)
        for number in [each for each in self._slices if each < oldest]:
            for column, count in enumerate(self._slices.pop(number)):
                self._before[column] += count
        rows, labels = self._due()
        state = State.OK
        if rows and labels / rows < self.limit:
            state = State.REGRESSED if interval(labels, rows, CONFIDENCE)[1] < self.limit else State.WATCH
        if state is not self.state:
            self.state, self.since = state, now

    @property
    def limit(self) -> float:
        """The labelled share that is asked for."""
        rows, labels = self._before
        return self.asked or (STOPPED * labels / rows if rows else 0.0)

    def standings(self) -> list[Standing]:
        """Return the one standing."""
        rows, labels = self._due()
        said = (
            f"{labels} of {rows} rows that are {self.delay / 3600:g} h old have a label, {self.limit:.2g} of them"
            f" are asked for{'' if self.asked else ', a tenth of what there was before'}"
        )
        value, bounds = (labels / rows, interval(labels, rows, CONFIDENCE)) if rows else (None, None)
        limit = self.limit or None
        return [Standing(self.name, *self.own, self.state, said, self.since, rows, value, bounds, limit)]

    def samples(self) -> Iterable[Sample]:
        """Return the labelled share and how long the last labels took."""
        rows, labels = self._due()
        if rows:
            yield Sample("slimline_label_coverage_ratio", labels / rows)
        if self._delays:
            for quantile, value in zip(QUANTILES, np.quantile(self._delays, QUANTILES), strict=True):
                yield Sample("slimline_label_delay_seconds", float(value), {"quantile": str(quantile)})

    def dump(self) -> dict[str, Any]:
        """Return its state as plain JSON data."""
        return {
            "width": self.width, "slices": sorted(self._slices.items()), "before": self._before,
            "delays": list(self._delays), "state": int(self.state), "since": self.since,
        }  # fmt: skip

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on from what ``dump`` returned. Raises ValueError where another ``label_delay_hours`` cut the slices."""
        if saved["width"] != self.width:
            raise ValueError("another label_delay_hours")
        self._slices = {int(number): list(counts) for number, counts in saved["slices"]}
        self._before = list(saved.get("before", (0, 0)))  # an earlier version didn't count them
        self._delays.extend(saved["delays"])
        self.state, self.since = State(saved["state"]), float(saved["since"])

    def _due(self) -> tuple[int, int]:
        """Return (rows, labels) of the slices that are old enough."""
        newest = (self._now - self.delay) // self.width
        due = [counts for number, counts in self._slices.items() if number < newest]
        return sum(counts[0] for counts in due), sum(counts[1] for counts in due)

    def _count(self, time: Floats, column: int) -> None:
        oldest = (self._now - 2 * self.delay) // self.width
        numbers, counts = np.unique(time // self.width, return_counts=True)
        for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
            if number >= oldest:
                self._slices.setdefault(int(number), [0, 0])[column] += count
