"""Sends a release's golden rows to an endpoint, and rows whose truth is known, and judges what comes back.

A round asks about every golden row by itself, for latency, then about the labelled rows in batches. What is asked is
the same each time, so a round is a verdict and not a sample: ``regressed`` is a signal that was bad in two rounds.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimline import goldens
from slimline.answers import Answers
from slimline.errors import UnavailableError
from slimline.intervals import share
from slimline.monitor.asking import Asker
from slimline.monitor.metrics import OWN, Shown, of_signals
from slimline.monitor.signal import Sample
from slimline.monitor.standing import Standing, State
from slimline.monitor.watched import Watched
from slimline.monitoring import objectives
from slimline.predictor import Arrays

BATCH = 16
CONFIDENCE = 0.95
ROUNDS = 2  # bad ones in a row
QUANTILES = (0.5, 0.95, 0.99)


@dataclass(frozen=True, eq=False)
class Rows:
    """``inputs`` with the index of their true labels, -1 where nobody knows."""

    inputs: Arrays
    labels: NDArray[np.int64]


class Probe:
    """Asks one endpoint, round after round; ``rows`` come beside the golden ones."""

    def __init__(self, asker: Asker, watched: Watched, rows: Rows | None = None) -> None:
        assert watched.release is not None  # noqa: S101  (a probe is made for a release)
        self.asker, self.watched, self.rows = asker, watched, rows
        self.targets = goldens.targets(watched.release)
        stage = watched.card["last"]
        self.inputs, golden = goldens.read(watched.release, stage)
        self.answers = Answers(watched.signature)
        self.golden = self.answers.of({self.answers.first: golden})[1]
        self.seconds: list[float] = []
        self.revision: str | None = None
        self._bad: dict[str, int] = {}
        self._since: dict[str, float] = {}

    def round(self) -> list[Standing]:
        """Ask about all rows and return where each signal stands."""
        found = []
        for each in self._findings():
            bad = 0 if each.state is State.OK else self._bad.get(each.signal, 0) + 1
            if bad in {0, 1, ROUNDS} and bad != self._bad.get(each.signal):
                self._since[each.signal] = each.since
            self._bad[each.signal] = bad
            state = State.REGRESSED if bad >= ROUNDS else each.state
            found.append(replace(each, state=state, since=self._since[each.signal]))
        return found

    def shown(self, standings: list[Standing]) -> Iterator[Shown]:
        """Return the metrics of a round."""
        names = dict(zip(OWN, self.watched.own, strict=True))
        samples = []
        for each in standings:
            if each.signal in {"accuracy", "agreement"} and each.value is not None and each.interval is not None:
                bounds = {"low": each.interval[0], "value": each.value, "high": each.interval[1], "floor": each.limit}
                samples += [
                    Sample(f"slimline_{each.signal}_ratio", value, {"bound": bound})
                    for bound, value in bounds.items()
                    if value is not None
                ]
        yield from of_signals(self.watched.own, standings, samples)
        if self.seconds:
            for quantile, value in zip(QUANTILES, np.quantile(self.seconds, QUANTILES), strict=True):
                yield Shown("slimline_probe_latency_seconds", float(value), {"quantile": str(quantile)} | names)
        yield Shown("slimline_probe_up", float(self._bad.get("errors", 0) == 0), names)

    def _findings(self) -> Iterator[Standing]:
        outputs, failures = self._ask_each()
        count = len(self.golden)
        failed = f"{len(failures)} of {count} requests failed: {failures[-1]}" if failures else ""
        yield self._finding("errors", failed or f"{count} requests answered", count, good=not failures)
        if len(outputs) < count:
            return
        yield self._agreement(outputs)
        yield from self._latency()
        yield from self._accuracy(outputs)

    def _finding(
        self,
        signal: str,
        message: str,
        count: int,
        value: float | None = None,
        interval: tuple[float, float] | None = None,
        limit: float | None = None,
        *,
        good: bool,
    ) -> Standing:
        """Return what one round found: ok or watch, since now."""
        state = State.OK if good else State.WATCH
        return Standing(signal, *self.watched.own, state, message, time.time(), count, value, interval, limit)

    def _ask_each(self) -> tuple[NDArray[np.float32], list[str]]:
        """Return the answers to the golden rows, one request each, and what failed."""
        outputs: list[NDArray[np.float32]] = []
        failures: list[str] = []
        self.seconds = []
        for row in range(len(self.golden)):
            try:
                answer = self.asker.ask({name: array[row : row + 1] for name, array in self.inputs.items()})
            except UnavailableError as error:
                failures.append(str(error))
                if not outputs:
                    break  # it is away: no need to wait for every row
                continue
            outputs.append(answer.outputs)
            self.seconds.append(answer.seconds)
            self.revision = answer.revision or self.revision
        return np.concatenate(outputs) if outputs else np.zeros((0, 0), np.float32), failures

    def _agreement(self, outputs: NDArray[np.float32]) -> Standing:
        if outputs.shape != self.golden.shape:
            shapes = f"{list(outputs.shape)}, not {list(self.golden.shape)}"
            said = f"golden rows are answered with shape {shapes}"
            return self._finding("agreement", said, len(outputs), good=False)
        if self.answers.labels:
            same = (self._said(outputs) == self._said(self.golden)).all(1)
        else:
            spread = max(float(np.sqrt(np.mean(self.golden**2))), float(np.finfo(np.float32).tiny))
            same = np.abs(outputs - self.golden).max(1) <= goldens.OTHER_CPU * spread
        value, limit = float(same.mean()), 1 - goldens.MISSES
        low, high = share(same, CONFIDENCE)
        said = f"{int(same.sum())} of {len(same)} golden rows answered as when the release was made"
        return self._finding("agreement", said, len(same), value, (low, high), limit, good=value >= limit)

    def _latency(self) -> Iterator[Standing]:
        limit = objectives.whole(self.watched.params, self.watched.objectives["latency_ms"])
        p50, p99 = np.quantile(self.seconds, (0.5, 0.99))
        said = f"one row takes {p50 * 1e3:.3g} ms (p50), {p99 * 1e3:.3g} ms (p99)"
        if limit is None:
            yield self._finding("latency", f"{said}; the benchmark has no latency", len(self.seconds), good=True)
            return
        said += f", {limit * 1e3:.3g} ms are allowed"
        yield self._finding("latency", said, len(self.seconds), float(p50), None, limit, good=bool(p50 <= limit))

    def _accuracy(self, outputs: NDArray[np.float32]) -> Iterator[Standing]:
        if not self.answers.labels:
            return
        many = self.answers.many
        known = np.ones(len(self.targets), np.bool_) if many else self.targets >= 0
        truth = self.targets > 0 if many else self.targets[:, None]
        right = (self._said(outputs) == truth).all(1)[known]
        if self.rows is not None:
            try:
                right = np.concatenate([right, self._right(self.rows)])
            except UnavailableError as error:
                yield self._finding("errors", str(error), len(self.rows.labels), good=False)
                return
        if not len(right):
            return
        low, high = share(right, CONFIDENCE)
        floor = self.watched.objectives.get("floors", {}).get("exact_match" if many else "accuracy")
        said = f"{int(right.sum())} of {len(right)} labelled rows right (95%: {low:.3f} to {high:.3f})"
        said += "" if floor is None else f", floor {floor:.3f}"
        good = floor is None or high >= floor
        yield self._finding("accuracy", said, len(right), float(right.mean()), (low, high), floor, good=good)

    def _right(self, rows: Rows) -> NDArray[np.bool_]:
        """Return [rows of known truth] whether each is answered with its label."""
        answers = []
        for start in range(0, len(rows.labels), BATCH):
            part = {name: array[start : start + BATCH] for name, array in rows.inputs.items()}
            answers.append(self.asker.ask(part).outputs.argmax(1))
        return np.asarray((np.concatenate(answers) == rows.labels)[rows.labels >= 0])

    def _said(self, outputs: NDArray[np.float32]) -> NDArray[Any]:
        """Return what probabilities [rows, labels] answer: [rows, 1], or [rows, labels] of any of several."""
        return self.answers.above(outputs) if self.answers.many else outputs.argmax(1)[:, None]
