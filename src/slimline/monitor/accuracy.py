"""The task's quality from labels as they come in, over all rows and class by class."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np

from slimline.monitor.baseline import Baseline
from slimline.monitor.floors import FloorTest
from slimline.monitor.recent import Recent
from slimline.monitor.scores import scores
from slimline.monitor.sequential import interval
from slimline.monitor.signal import Labelled, Predicted, Sample
from slimline.monitor.standing import Standing, State

CONFIDENCE = 0.95
SHOWN = 200  # labels a class at most in its own ratio
NAMED = 0.1  # of the evidence: a class that carries so much is named


class Accuracy:
    """Compares each labelled row with the floor of its true class, so that other shares of classes raise no alarm.

    ``watch``: evidence is gathering, or the ratio itself lies below the overall floor and the mix of classes explains
    it.
    """

    name: ClassVar[str] = "accuracy"

    def __init__(self, baseline: Baseline, own: tuple[str, str], threshold: float) -> None:
        self.baseline, self.own = baseline, own
        self.scores = scores(baseline)
        self.test = FloorTest(threshold, self.scores.alone)
        self._classes = [Recent(1, SHOWN) for _ in baseline.labels or ()] if self.scores.alone is not None else []

    def predicted(self, batch: Predicted) -> None:
        """Answers alone say nothing of their quality."""

    def labelled(self, batch: Labelled) -> None:
        """Score what turned out to be true."""
        known = self.scores.known(batch)
        if not known.any():
            return
        scored, labels = self.scores.of(batch), batch.labels[known]
        self.test.feed(scored, self.scores.promised(batch), batch.time[known], labels)
        for index in np.unique(labels) if self._classes else ():
            self._classes[index].feed(scored[labels == index, None])

    def tick(self, now: float) -> None:
        """Labels alone move it."""

    def standings(self) -> list[Standing]:
        """Return where the whole stands, then each class."""
        test, floor = self.test, self.scores.floor
        bounds = test.bounds(CONFIDENCE)
        state = test.state
        by_mix = floor is not None and test.count > 0 and bounds[1] < floor
        if state is State.OK and by_mix:
            state = State.WATCH
        whole = Standing(
            self.name, *self.own, state, self._message(bounds, by_mix=by_mix), test.since, test.count, test.value,
            bounds if test.count else None, floor, test.evidence if floor is not None else None,
            test.detector.threshold if floor is not None else None,
        )  # fmt: skip
        return [whole, *self._class_standings()]

    def _class_standings(self) -> Iterable[Standing]:
        test, labels = self.test, self.baseline.labels
        if not self._classes or self.scores.alone is None or labels is None:
            return
        for label, recent, share, floor in zip(labels, self._classes, test.shares[1:], self.scores.alone, strict=True):
            state = State.OK
            if share >= NAMED * test.evidence and test.state is not State.OK:
                state = test.state
            total, count = float(recent.sums[0]), recent.count
            value = total / count if count else None
            bounds = interval(total, count, CONFIDENCE) if count else None
            said = f"{label}: {total:.0f} of the last {count} right, floor {floor:.3f}"
            yield Standing(
                f"{self.name}/{label}", *self.own, state, said, test.since, count, value, bounds, float(floor),
                float(share), test.detector.threshold,
            )  # fmt: skip

    def _message(self, bounds: tuple[float, float], *, by_mix: bool) -> str:
        test, floor = self.test, self.scores.floor
        if test.value is None:
            return "no labels yet"
        what = "right" if self.baseline.labels else "mean score"
        said = f"{test.value:.3f} {what} of late (95%: {bounds[0]:.3f} to {bounds[1]:.3f})"
        if floor is None:
            return f"{said}; no floor: the budget has no max_drop of {self.baseline.promises.metric}"
        said += f", floor {floor:.3f}, e-value {test.evidence:.3g} of {test.detector.threshold:.3g}"
        worst = [
            label
            for label, share in zip(self.baseline.labels or (), test.shares[1:], strict=False)
            if share >= NAMED * test.evidence
        ]
        if test.state is State.REGRESSED:
            return f"{said}: below its floor{', most of all ' + ', '.join(worst) if worst else ''}"
        if by_mix:
            return f"{said}: below the overall floor, but the mix of classes explains it"
        return said

    def samples(self) -> Iterable[Sample]:
        """Return the ratio of late with its interval, the floor, and each class's ratio."""
        test = self.test
        if test.value is not None:
            low, high = test.bounds(CONFIDENCE)
            for bound, value in (("low", low), ("value", test.value), ("high", high)):
                yield Sample("slimline_accuracy_ratio", value, {"bound": bound})
        if self.scores.floor is not None:
            yield Sample("slimline_accuracy_ratio", self.scores.floor, {"bound": "floor"})
        for label, recent in zip(self.baseline.labels or (), self._classes, strict=False):
            if recent.count:
                share = float(recent.sums[0]) / recent.count
                yield Sample("slimline_class_accuracy_ratio", share, {"label": label})

    def dump(self) -> dict[str, Any]:
        """Return its state as plain JSON data."""
        return {"test": self.test.dump(), "classes": [each.dump() for each in self._classes]}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on from what ``dump`` returned."""
        self.test.restore(saved["test"])
        for recent, own in zip(self._classes, saved["classes"], strict=True):
            recent.restore(own)
