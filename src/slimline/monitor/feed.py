"""From the event store's columns to the batches that signals take: labels become indices of the release's labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from slimline.events import Answers, Truths
from slimline.events.records import Value
from slimline.monitor.signal import Labelled, Predicted

NONE = -1


def predicted(answers: Answers, index: Mapping[str, int]) -> Predicted:
    """Return answers with ``index`` {label: number} applied."""
    return Predicted(
        answers.time,
        answers.latency,
        answers.outputs,
        _indices(answers.labels, len(answers.outputs), index),
        answers.request,
        answers.stages,
        answers.sampled,
        answers.inputs,
    )


def labelled(truths: Truths, index: Mapping[str, int]) -> Labelled:
    """Return rows with their truths as indices, and as numbers where they are some."""
    rows = len(truths.outputs)
    said: Sequence[str] = [each if isinstance(each, str) else str(each) for each in truths.truths]
    return Labelled(
        truths.time,
        truths.predicted,
        truths.outputs,
        _indices(truths.labels, rows, index),
        _indices(said, rows, index),
        np.array([_number(each) for each in truths.truths], np.float64),
        truths.stages,
        truths.sampled,
    )


def _indices(labels: Sequence[str] | None, rows: int, index: Mapping[str, int]) -> NDArray[np.int64]:
    if labels is None or not index:
        return np.full(rows, NONE, np.int64)
    return np.fromiter((index.get(label, NONE) for label in labels), np.int64, rows)


def _number(value: Value) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")
