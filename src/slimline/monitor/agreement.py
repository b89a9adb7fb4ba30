"""Agreement with the teacher on the sampled requests: quality without labels, and without any assumption."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from slimline.monitor.baseline import Baseline, Outputs
from slimline.monitor.floors import FloorTest
from slimline.monitor.signal import Labelled, Predicted, Sample
from slimline.monitor.standing import Standing, State
from slimline.pipeline import ROOT

CONFIDENCE = 0.95
Floats = NDArray[np.float64]


class Agreement:
    """Compares each sampled row with the floor of the teacher's answer, so that other shares of answers raise no alarm.

    With labels a row agrees when both give the same label, or the same labels where any of several may be; with numbers
    as far as both are near, 1 − |difference|/range of the truth, and the floor is that of the reference rows less
    ``drop``.
    """

    name: ClassVar[str] = "agreement"

    def __init__(self, baseline: Baseline, own: tuple[str, str], threshold: float, drop: float) -> None:
        self.baseline, self.own = baseline, own
        self.range = 1.0
        if baseline.labels:
            self.floors = baseline.promises.agreement
        else:
            self.range = float(np.ptp(baseline.targets)) or 1.0
            reference = baseline.reference
            near = self._near(reference[ROOT], reference[baseline.stage])
            self.floors = np.array([near.mean() - drop])
        self.test = FloorTest(threshold)

    def predicted(self, batch: Predicted) -> None:
        """Compare the sampled rows' answers."""
        stages = batch.stages
        if self.floors is None or not len(batch.sampled) or ROOT not in stages or self.baseline.stage not in stages:
            return
        teacher, own = stages[ROOT], stages[self.baseline.stage]
        there = np.isfinite(teacher).all(1)  # a stage that failed is NaN; the last one's failure counts against it
        teacher, own = teacher[there], own[there]
        time = batch.time[batch.request[batch.sampled[there]]]
        if self.baseline.labels:
            answers, stage = self.baseline.answers, self.baseline.stage
            said = answers[ROOT].chosen(teacher)
            agree = (said == answers[stage].chosen(own)).all(1) & np.isfinite(own).all(1)
            floors = self.floors[teacher.argmax(1)]  # of several labels all have one floor
            self.test.feed(agree.astype(np.float64), floors, time)
        else:
            self.test.feed(self._near(teacher, own), np.full(len(own), self.floors[0]), time)

    def _near(self, a: Outputs, b: Outputs) -> Floats:
        distance = np.abs(a.astype(np.float64) - b).mean(1) / self.range
        near: Floats = np.nan_to_num(1.0 - np.minimum(distance, 1.0), nan=0.0)
        return near

    def labelled(self, batch: Labelled) -> None:
        """The truth doesn't matter here."""

    def tick(self, now: float) -> None:
        """Sampled rows alone move it."""

    def standings(self) -> list[Standing]:
        """Return where it stands."""
        test = self.test
        bounds = test.bounds(CONFIDENCE) if test.count else None
        said = "no sampled rows yet"
        if test.value is not None and test.promised is not None and bounds is not None:
            said = (
                f"agrees with the teacher on {test.value:.3f} of late (95%: {bounds[0]:.3f} to {bounds[1]:.3f}), floor "
                f"{test.promised:.3f} for this mix, e-value {test.evidence:.3g} of {test.detector.threshold:.3g}"
            )
            if test.state is State.REGRESSED:
                said += ": below its floor"
        return [
            Standing(
                self.name, *self.own, test.state, said, test.since, test.count, test.value, bounds, test.promised,
                test.evidence, test.detector.threshold,
            )
        ]  # fmt: skip

    def samples(self) -> Iterable[Sample]:
        """Return the ratio of late with its interval and its floor."""
        test = self.test
        if test.value is None or test.promised is None:
            return
        low, high = test.bounds(CONFIDENCE)
        for bound, value in (("low", low), ("value", test.value), ("high", high), ("floor", test.promised)):
            yield Sample("slimline_agreement_ratio", value, {"bound": bound})

    def dump(self) -> dict[str, Any]:
        """Return its state as plain JSON data."""
        return {"test": self.test.dump()}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on from what ``dump`` returned."""
        self.test.restore(saved["test"])
