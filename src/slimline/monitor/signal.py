"""The contract of a signal: fed in batches, in the order of the store, it says where one release stands.

One object watches one revision and variant. It must be cheap (thousands of rows a second on one core), bounded in
memory however long it runs, and the same after ``restore(dump())``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from slimline.monitor.standing import Standing

Floats = NDArray[np.float64]
Outputs = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Predicted:
    """Requests of one revision and variant, oldest first.

    ``time`` [requests] Unix seconds; ``latency`` {part: seconds [requests]}; ``outputs`` [rows, k] what the model said
    (probabilities where the task has labels), ``answers`` [rows] the index of its label, -1 without labels; ``request``
    [rows] which request a row belongs to. ``stages`` {stage: [sampled rows, k]}: the rows ``sampled`` went through the
    whole chain, whose raw outputs these are. ``inputs`` {input: [sampled rows, …]}, empty where inputs aren't kept.
    """

    time: Floats
    latency: Mapping[str, Floats]
    outputs: Outputs
    answers: NDArray[np.int64]
    request: NDArray[np.int64]
    stages: Mapping[str, Outputs]
    sampled: NDArray[np.int64]
    inputs: Mapping[str, NDArray[Any]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Labelled:
    """Rows whose truth became known, in the order in which it was written; a row comes once, with its first label.

    ``time`` when the label was written and ``predicted`` when the row was answered [rows], Unix seconds; ``outputs``
    [rows, k], ``answers`` [rows], ``labels`` [rows] (indices, -1: no label of the task) or ``targets`` (numbers, where
    the task has none). ``stages`` {stage: [sampled rows, k]} and ``sampled`` [sampled rows] as in ``Predicted``.
    """

    time: Floats
    predicted: Floats
    outputs: Outputs
    answers: NDArray[np.int64]
    labels: NDArray[np.int64]
    targets: Floats
    stages: Mapping[str, Outputs]
    sampled: NDArray[np.int64]


class Sample(NamedTuple):
    """One value of a Prometheus gauge; ``revision`` and ``variant`` are added by the monitor."""

    metric: str
    value: float
    labels: Mapping[str, str] = {}


class Signal(Protocol):
    """Watches one revision and variant."""

    name: ClassVar[str]

    def predicted(self, batch: Predicted) -> None:
        """Take what was answered."""

    def labelled(self, batch: Labelled) -> None:
        """Take what turned out to be true."""

    def tick(self, now: float) -> None:
        """Take note that it is ``now`` (Unix seconds): windows end, traffic may have stopped."""

    def standings(self) -> list[Standing]:
        """Return where it stands, one Standing a thing that it watches."""

    def samples(self) -> Iterable[Sample]:
        """Return the values of its gauges."""

    def dump(self) -> dict[str, Any]:
        """Return all that it remembers, as plain JSON data."""

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on from what ``dump`` returned."""
