"""Do inputs and answers still look as they did when the release was made? Drift alone is watched, never paged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from slimline.features import input_features
from slimline.monitor.baseline import Baseline, Outputs
from slimline.monitor.embedding import Projection
from slimline.monitor.floors import SPAN
from slimline.monitor.histogram import Histogram, moved, of_classes, of_values, weights
from slimline.monitor.recent import Recent
from slimline.monitor.sequential import Detector
from slimline.monitor.signal import Labelled, Predicted, Sample
from slimline.monitor.standing import Standing, State
from slimline.pipeline import ROOT

Floats = NDArray[np.float64]
INPUT = "drift/input"
EVERY = 10  # rows in one step, where every row is seen
NAMED = 0.1  # of the evidence: a feature that carries so much is named
MOST_OUTPUTS = 8  # of a task without labels

Values = dict[str, NDArray[np.generic]]


class Drift:
    """Tests bins of features together: of all rows, of sampled rows, and of the inputs kept of those.

    A stage that answers wrongly moves its own answers as another input does, so ``drift/input`` says apart whether what
    no compression touches has moved: the teacher's answers, and the inputs.

    All rows: ``answers`` and their ``confidence`` (without labels: each output). Sampled rows: the same of the teacher,
    which no compression touches, so that these move with the data alone, and its whole output vector along a few
    directions (``slimline.monitor.embedding``). Kept inputs: see ``slimline.features``.
    ``error`` is the chance that the reference, being a sample, makes drift of nothing.
    """

    name: ClassVar[str] = "drift"

    def __init__(self, baseline: Baseline, own: tuple[str, str], threshold: float, error: float) -> None:
        self.baseline, self.own = baseline, own
        found: dict[str, Values] = {
            "rows": self._values(baseline.reference.get(baseline.stage)),
            "inputs": dict(baseline.features),
        }
        if baseline.stage != ROOT:
            found["sampled"] = _of_teacher(self._values(baseline.reference.get(ROOT)))
        self.projection = None
        if baseline.teacher is not None and baseline.teacher.shape[1] > 1:  # a single output is a feature already
            shared = bool(baseline.labels) and not baseline.many  # one label of all: a common shift changes nothing
            self.projection = Projection(baseline.teacher, logits=shared)
            found["embedding"] = _of_teacher(self.projection.of(baseline.teacher))
        found = {kind: values for kind, values in found.items() if values}
        features = sum(len(values) for values in found.values())
        classes = len(baseline.labels or ())
        self.groups = {
            kind: _Group(
                [
                    of_classes(name, column.astype(np.int64), classes, error / features)
                    if name.endswith("answers")
                    else of_values(name, column.astype(np.float64), error / features)
                    for name, column in values.items()
                ],
                threshold * len(found),
                EVERY if kind == "rows" else 1,
            )
            for kind, values in found.items()
        }

    def _values(self, outputs: Outputs | None) -> Values:
        if outputs is None:
            return {}
        if self.baseline.labels:
            return {"answers": outputs.argmax(1), "confidence": outputs.max(1)}
        return {f"output.{column}": outputs[:, column] for column in range(min(outputs.shape[1], MOST_OUTPUTS))}

    def predicted(self, batch: Predicted) -> None:
        """Take what was answered and what was sampled."""
        groups = self.groups
        if "rows" in groups and len(batch.outputs):
            groups["rows"].feed(self._values(batch.outputs), batch.time[batch.request])
        if not len(batch.sampled):
            return
        time = batch.time[batch.request[batch.sampled]]
        if ROOT in batch.stages:
            there = np.isfinite(batch.stages[ROOT]).all(1)
            raw = batch.stages[ROOT][there]
            if "sampled" in groups:
                groups["sampled"].feed(_of_teacher(self._values(self.baseline.outputs(ROOT, raw))), time[there])
            if self.projection is not None:
                groups["embedding"].feed(_of_teacher(self.projection.of(raw)), time[there])
        if "inputs" in groups and batch.inputs:
            groups["inputs"].feed(dict(input_features(batch.inputs)), time)

    def labelled(self, batch: Labelled) -> None:
        """The truth doesn't matter here."""

    def tick(self, now: float) -> None:
        """Rows alone move it."""

    def standings(self) -> list[Standing]:
        """Return where it stands."""
        groups = list(self.groups.values())
        drifted = [group for group in groups if group.drifted]
        named = [name for group in drifted for name in group.named]
        scores = {name: score for group in groups for name, score in group.scores().items()}
        most = max(scores, key=lambda name: scores[name], default=None)
        said = "no rows yet"
        if most is not None:
            said = f"{scores[most]:.3f} of the rows lie elsewhere by {most} than among the release's references"
            if drifted:
                said = f"{', '.join(named)} drifted; {said}"
        since = min((group.since for group in drifted), default=max((group.since for group in groups), default=0.0))
        evidence = max((group.evidence / group.detector.threshold for group in groups), default=0.0)
        threshold = groups[0].detector.threshold / len(groups) if groups else 0.0
        own = self.groups.get("rows")
        moved = [name for group in drifted if group is not own for name in group.named]
        apart = "what no compression touches looks as it did" if not moved else f"{', '.join(moved)} drifted"
        return [
            Standing(
                self.name, *self.own, State.WATCH if drifted else State.OK, said, since,
                max((group.count for group in groups), default=0), scores[most] if most is not None else None,
                evidence=evidence * threshold, threshold=threshold,
            ),
            Standing(
                INPUT, *self.own, State.WATCH if moved else State.OK, apart, since,
                max((group.count for group in groups if group is not own), default=0),
            ),
        ]  # fmt: skip

    def samples(self) -> Iterable[Sample]:
        """Return each feature's score: the share of rows of late that lie in other bins than the reference's."""
        for group in self.groups.values():
            for name, score in group.scores().items():
                yield Sample("slimline_drift_score", score, {"feature": name})

    def dump(self) -> dict[str, Any]:
        """Return its state as plain JSON data."""
        return {kind: group.dump() for kind, group in self.groups.items()}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on from what ``dump`` returned."""
        for kind, group in self.groups.items():
            group.restore(saved[kind])


def _of_teacher(values: Mapping[str, NDArray[np.generic]]) -> Values:
    return {f"{ROOT}.{name}": column for name, column in values.items()}


class _Group:
    """Features that are known of the same rows."""

    def __init__(self, histograms: list[Histogram], threshold: float, every: int) -> None:
        self.histograms = histograms
        self.detector = Detector(weights(histograms), threshold, every=every)
        self._recent = [Recent(len(each.shares), SPAN) for each in histograms]
        self.count, self.since, self.quiet = 0, 0.0, -1  # quiet: rows since the last alarm, -1: there was none

    def feed(self, values: Mapping[str, NDArray[np.generic]], time: Floats) -> None:
        if not len(time) or any(each.name not in values for each in self.histograms):
            return
        if not self.count:
            self.since = float(time[0])
        drifted = self.drifted
        made = []
        for each, recent in zip(self.histograms, self._recent, strict=True):
            bins = each.bins(values[each.name])
            made.append(each.factors[bins])
            recent.feed(np.eye(len(each.shares))[bins])
        alarms = self.detector.feed(np.concatenate(made, axis=1))
        self.count += len(time)
        if alarms:
            self.quiet = len(time) - 1 - alarms[-1]
            if not drifted:
                self.since = float(time[alarms[0]])
        elif self.quiet >= 0:
            self.quiet += len(time)
            if not self.drifted:
                self.since, self.quiet = float(time[-1]), -1

    @property
    def drifted(self) -> bool:
        """Whether there was an alarm in the last 1,000 rows."""
        return 0 <= self.quiet < SPAN

    @property
    def evidence(self) -> float:
        return max(self.detector.evidence, float(self.detector.at_alarm.sum()) if self.drifted else 0.0)

    @property
    def named(self) -> list[str]:
        """The features that carried the last alarm."""
        ends = np.cumsum([2 * len(each.shares) for each in self.histograms])
        parts = [float(part.sum()) for part in np.split(self.detector.at_alarm, ends[:-1])]
        return [
            each.name for each, part in zip(self.histograms, parts, strict=True) if part >= NAMED * max(sum(parts), 1.0)
        ]

    def scores(self) -> dict[str, float]:
        return {
            each.name: moved(each.shares, recent.sums)
            for each, recent in zip(self.histograms, self._recent, strict=True)
            if recent.count
        }

    def dump(self) -> dict[str, Any]:
        return {
            "detector": self.detector.dump(), "recent": [each.dump() for each in self._recent], "count": self.count,
            "since": self.since, "quiet": self.quiet,
        }  # fmt: skip

    def restore(self, saved: Mapping[str, Any]) -> None:
        self.detector.restore(saved["detector"])
        for recent, own in zip(self._recent, saved["recent"], strict=True):
            recent.restore(own)
        self.count, self.since, self.quiet = int(saved["count"]), float(saved["since"]), int(saved["quiet"])
