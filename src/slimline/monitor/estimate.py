"""Quality without labels or a teacher: the calibrated confidence of the answers, and how far labels bear it out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from slimline.monitor.baseline import Baseline
from slimline.monitor.floors import SPAN, FloorTest
from slimline.monitor.recent import Recent
from slimline.monitor.signal import Labelled, Predicted, Sample
from slimline.monitor.standing import Standing, State

CONFIDENCE = 0.95
EVERY = 10  # rows in one step of the detector: every row is seen, and the run length is ten times that of labels
PRIOR = 20  # rows by which the mean of an answer that is rare among the references leans on that of all
ENOUGH = 200  # labelled rows that may contradict an alarm
Floats = NDArray[np.float64]


class Estimate:
    """Compares each row's chance to be right with the floor of the answer given.

    The floor of an answer is its mean chance among the reference rows, shifted by as much as the promised accuracy lies
    below that of all reference rows. Confidence is no proof: a model can be wrong and sure of it, or right and unsure,
    and harder classes look like a loss. So an alarm is ``watch`` while labels of rows answered since contradict it:
    class by class they keep what is promised.
    """

    name: ClassVar[str] = "estimate"

    def __init__(self, baseline: Baseline, own: tuple[str, str], threshold: float) -> None:
        assert baseline.calibration is not None and baseline.labels  # noqa: S101, PT018
        self.baseline, self.own, self.calibration = baseline, own, baseline.calibration
        self.floor = baseline.promises.overall
        self.floors = np.zeros(len(baseline.labels)) if self.floor is None else self._floors(self.floor)
        self.test = FloorTest(threshold, every=EVERY)
        self._tracked = Recent(2, SPAN)  # chance to be right, right
        self._since_alarm = Recent(1, SPAN)  # right, less what is promised for the true class
        self._alarm = 0.0

    def _floors(self, promised: float) -> Floats:
        outputs, labels = self.baseline.reference[self.baseline.stage], self.baseline.labels or ()
        chance, answers = self.calibration(outputs.max(1)), outputs.argmax(1)
        counts = np.bincount(answers, minlength=len(labels))
        sums = np.bincount(answers, chance, minlength=len(labels))
        means = (sums + PRIOR * chance.mean()) / (counts + PRIOR)
        floors: Floats = means - (chance.mean() - promised)
        return floors

    def predicted(self, batch: Predicted) -> None:
        """Take the confidence of all rows."""
        known = batch.answers >= 0
        chance = self.calibration(batch.outputs[known].max(1)) if known.any() else np.zeros(0)
        before = self.test.state
        self.test.feed(chance, self.floors[batch.answers[known]], batch.time[batch.request[known]])
        if self.test.state is State.REGRESSED and before is not State.REGRESSED:
            self._alarm = self.test.since
            self._since_alarm.restart()

    def labelled(self, batch: Labelled) -> None:
        """Compare the confidence with the truth."""
        known = (batch.labels >= 0) & (batch.answers >= 0)
        if not known.any():
            return
        chance = self.calibration(batch.outputs[known].max(1))
        right = (batch.answers[known] == batch.labels[known]).astype(np.float64)
        self._tracked.feed(np.stack([chance, right], axis=1))
        promised = self.baseline.promises.classes
        if promised is not None:
            surplus = right - promised[batch.labels[known]]
            self._since_alarm.feed(surplus[batch.predicted[known] >= self._alarm, None])

    def tick(self, now: float) -> None:
        """Rows alone move it."""

    def _contradicted(self) -> bool:
        return self._since_alarm.count >= ENOUGH and float(self._since_alarm.sums[0]) >= 0

    def standings(self) -> list[Standing]:
        """Return where it stands."""
        test, state = self.test, self.test.state
        contradicted = state is State.REGRESSED and self._contradicted()
        if contradicted:
            state = State.WATCH
        bounds = test.bounds(CONFIDENCE) if test.count else None
        said = "no rows yet"
        if test.value is not None and bounds is not None:
            said = f"{test.value:.3f} right by confidence of late (calibration error {self.calibration.error:.3f})"
            if self.floor is not None:
                said += f", floor {test.promised:.3f} for this mix, e-value {test.evidence:.3g}"
                said += f" of {test.detector.threshold:.3g}"
            if self._tracked.count:
                claimed, right = self._tracked.sums / self._tracked.count
                said += f"; on {self._tracked.count} labelled rows it said {claimed:.3f} where {right:.3f} were right"
            if contradicted:
                said += "; labels since then contradict the alarm"
        tested = self.floor is not None
        return [
            Standing(
                self.name, *self.own, state, said, test.since, test.count, test.value, bounds,
                test.promised if tested else None, test.evidence if tested else None,
                test.detector.threshold if tested else None,
            )
        ]  # fmt: skip

    def samples(self) -> Iterable[Sample]:
        """Return the estimate of late, its calibration error on validation, and by how much labels showed it wrong."""
        if self.test.value is not None:
            low, high = self.test.bounds(CONFIDENCE)
            for bound, value in (("low", low), ("value", self.test.value), ("high", high)):
                yield Sample("slimline_accuracy_estimate_ratio", value, {"bound": bound})
        yield Sample("slimline_calibration_error_ratio", self.calibration.error)
        if self._tracked.count:
            claimed, right = self._tracked.sums / self._tracked.count
            yield Sample("slimline_estimate_error_ratio", float(claimed - right))

    def dump(self) -> dict[str, Any]:
        """Return its state as plain JSON data."""
        return {
            "test": self.test.dump(),
            "tracked": self._tracked.dump(),
            "since_alarm": self._since_alarm.dump(),
            "alarm": self._alarm,
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on from what ``dump`` returned."""
        self.test.restore(saved["test"])
        self._tracked.restore(saved["tracked"])
        self._since_alarm.restore(saved["since_alarm"])
        self._alarm = float(saved["alarm"])
