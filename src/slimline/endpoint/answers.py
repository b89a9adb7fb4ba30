"""Raw outputs to the answers that clients read: labels and probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimline.predictor import Arrays


class Answers:
    """Turns a model's outputs into ``predictions``, as its signature says.

    With ``labels`` the first output holds one logit a label (or probabilities, when it is called so) and a prediction
    is ``{"label", "probabilities": {label: p}}``; without, it is ``{"outputs": {name: values}}``.
    """

    def __init__(self, signature: Mapping[str, Any]) -> None:
        outputs = signature["outputs"]
        self.first: str = outputs[0]["name"]
        labels = signature.get("labels")
        self.labels: list[str] | None = [str(each) for each in labels] if labels else None
        self._normalized = self.first in {"probabilities", "probs", "scores"}

    def of(self, outputs: Arrays) -> tuple[list[str] | None, list[dict[str, Any]], NDArray[np.float32]]:
        """Return (label per row or None, predictions, what is recorded: rows × outputs float32)."""
        first = outputs[self.first]
        if self.labels is None or first.ndim != 2 or first.shape[1] != len(self.labels):
            rows = len(first)
            listed = {name: array.tolist() for name, array in outputs.items() if len(array) == rows}
            predictions = [{"outputs": {name: values[row] for name, values in listed.items()}} for row in range(rows)]
            return None, predictions, first.reshape(rows, -1).astype(np.float32, copy=False)
        probabilities = first if self._normalized else softmax(first)
        names = self.labels
        chosen = [names[index] for index in first.argmax(axis=1).tolist()]
        predictions = [
            {"label": label, "probabilities": dict(zip(names, row, strict=True))}
            for label, row in zip(chosen, probabilities.tolist(), strict=True)
        ]
        return chosen, predictions, probabilities


def softmax(logits: NDArray[Any]) -> NDArray[np.float32]:
    """Return exp(x − max x) / Σ exp(x − max x) over the last axis."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shifted /= shifted.sum(axis=-1, keepdims=True)
    return np.asarray(shifted, dtype=np.float32)
