"""Raw outputs to the answers that clients read: labels and probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimline.errors import ArtifactError
from slimline.predictor import Arrays


class Answers:
    """Turns a model's outputs into ``predictions``, as its signature says.

    With ``labels`` the first output holds one logit a label (or probabilities, when it is called so) and a prediction
    is ``{"label", "probabilities": {label: p}}``; without, it is ``{"outputs": {name: values}}``. Where the signature's
    ``answer`` is "many", each label has a probability of its own, and ``label`` is those above their
    ``thresholds`` (one half where it has none), by commas. Raises ArtifactError where these are not one a label.
    """

    def __init__(self, signature: Mapping[str, Any]) -> None:
        outputs = signature["outputs"]
        self.first: str = outputs[0]["name"]
        labels = signature.get("labels")
        scores = len(outputs[0]["shape"]) == 2 and outputs[0]["shape"][1] == len(labels or ())
        self.labels: list[str] | None = [str(each) for each in labels] if labels and scores else None
        self.many = signature.get("answer") == "many" and self.labels is not None
        self.thresholds: list[float] | None = None
        if self.many and self.labels is not None:
            self.thresholds = signature.get("thresholds") or [0.5] * len(self.labels)
            if len(self.thresholds) != len(self.labels):
                raise ArtifactError(
                    f"signature.json: {len(self.thresholds)} thresholds for {len(self.labels)} labels; export it again"
                )
        self._normalized = self.first in {"probabilities", "probs", "scores"}

    def of(self, outputs: Arrays) -> tuple[list[str] | None, NDArray[np.float32]]:
        """Return (label per row or None, what is recorded: rows × probabilities, or rows × outputs, float32)."""
        return self.named(*self.scored(outputs))

    def scored(self, outputs: Arrays) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """Return (index of the label per row, what is recorded); without labels there are no indices."""
        first = outputs[self.first]
        if self.labels is None:
            return np.empty(len(first), np.intp), np.asarray(first.reshape(len(first), -1), np.float32)
        if self.many:
            each = first if self._normalized else 1 / (1 + np.exp(-first.astype(np.float64)))
            return first.argmax(axis=1), np.asarray(each, np.float32)
        return first.argmax(axis=1), first if self._normalized else softmax(first)

    def named(
        self, indices: NDArray[np.intp], recorded: NDArray[np.float32]
    ) -> tuple[list[str] | None, NDArray[np.float32]]:
        """Return what ``scored`` gave, or some rows of it, with the labels themselves."""
        names = self.labels
        if names is not None and self.thresholds is not None:
            above = self.above(recorded).tolist()
            return [",".join(name for name, yes in zip(names, row, strict=True) if yes) for row in above], recorded
        return None if names is None else [names[index] for index in indices.tolist()], recorded

    def chosen(self, raw: NDArray[Any]) -> NDArray[Any]:
        """Return the answer to each row of the first output: [rows, 1], the label's index; any of several: [rows, k].

        Of several, k are the labels, and True those that are answered. Two rows are answered alike where all k are.
        """
        if self.thresholds is None:
            return np.asarray(raw.argmax(axis=1)[:, None])
        return self.above(self.scored({self.first: raw})[1])

    def above(self, recorded: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Return [rows, labels] which probabilities lie above their thresholds, where any of several may."""
        return np.asarray(recorded > np.array(self.thresholds, np.float64))

    def predictions(
        self, labels: list[str] | None, probabilities: NDArray[np.float32], outputs: Arrays
    ) -> list[dict[str, Any]]:
        """Return one prediction a row, as JSON takes it."""
        if labels is None or self.labels is None:
            listed = {name: array.tolist() for name, array in outputs.items()}
            return [
                {"outputs": {name: rows[row] for name, rows in listed.items()}} for row in range(len(probabilities))
            ]
        names = self.labels
        return [
            {"label": label, "probabilities": dict(zip(names, row, strict=True))}
            for label, row in zip(labels, probabilities.tolist(), strict=True)
        ]


def softmax(logits: NDArray[Any]) -> NDArray[np.float32]:
    """Return exp(x − max x) / Σ exp(x − max x) over the last axis."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shifted /= shifted.sum(axis=-1, keepdims=True)
    return np.asarray(shifted, dtype=np.float32)
