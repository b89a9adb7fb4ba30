"""What the event store holds: predictions, and the labels that tell later whether they were right."""

from __future__ import annotations

import time as clock
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]
Value = str | float | list[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """One answered request.

    ``outputs`` (rows × outputs, float32) is what the model said, ``labels`` the answer for each row where the task
    names its answers. ``time`` is Unix time in seconds; ``latency`` holds seconds by part (decode, queue, predict,
    total) and is kept to the microsecond. A ``shadow`` answer was recorded, never returned. For requests that were
    sampled, ``sampled`` lists the rows, ``stages`` {stage: rows × outputs} what each stage of the chain says about
    them, and ``inputs`` {input: rows × …} the rows themselves, where the store is told to keep them.
    """

    id: str
    time: float
    revision: str
    variant: str
    labels: list[str] | None
    outputs: NDArray[np.float32]
    latency: dict[str, float]
    shadow: bool = False
    stages: dict[str, NDArray[np.float32]] | None = None
    sampled: list[int] | None = None
    inputs: Arrays | None = None


@dataclass(frozen=True, slots=True)
class Label:
    """What was true for row ``index`` of the prediction ``id``; ``time`` (Unix, seconds) is when that was said."""

    id: str
    index: int
    label: Value
    time: float = field(default_factory=clock.time)


class Outcome(StrEnum):
    """What became of a label. All but NO_SUCH_ROW are durable when ``EventStore.label`` returns."""

    NEW = "new"
    CORRECTED = "corrected"
    """Another label stood there; it stays in the history."""
    DUPLICATE = "duplicate"
    """The same label stood there already; nothing was written."""
    EARLY = "early"
    """No prediction of that id is known yet; kept, and joined when it arrives."""
    NO_SUCH_ROW = "no such row"
    """The prediction is known and has fewer rows; refused."""


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """One row of a prediction with the label that holds now.

    ``answer`` is the model's label for the row, ``outputs`` its outputs (one axis), ``stages`` the same from each
    stage of the chain where the row was sampled.
    """

    id: str
    index: int
    time: float
    revision: str
    variant: str
    shadow: bool
    answer: str | None
    outputs: NDArray[np.float32]
    label: Value
    labelled: float
    stages: dict[str, NDArray[np.float32]] | None = None
