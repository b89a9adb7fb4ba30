"""What a row's label can be: one of several classes, any of several, a number. Tasks on one's own data mix one in."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from slimline import thresholds
from slimline.errors import DataError, near_miss
from slimline.own_data import labelled_rows
from slimline.task import Classification, Task

SHOWN = 20
FITTED: Final = "fitted"


class _Labels:
    """The positions of labels, by what may stand in a file for them."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = list(names)
        self._of_name = {name: at for at, name in enumerate(names)}
        numbers = [(labelled_rows.number(name), at) for name, at in self._of_name.items()]
        self._of_number = {number: at for number, at in reversed(numbers) if number is not None}

    def index(self, value: Any) -> int:
        """Return the position of a label; a whole number stands for a position where no label is a number."""
        text = str(value).strip() if value is not None else ""
        if not text:
            raise DataError("no label")
        if text in self._of_name:
            return self._of_name[text]
        number = labelled_rows.number(text)
        if number is not None and number in self._of_number:  # 1 for 1.0
            return self._of_number[number]
        place = labelled_rows.position(text)
        if place is not None and place < len(self._names) and not self._of_number:
            return place
        shown = ", ".join(self._names[:SHOWN]) + (", …" if len(self._names) > SHOWN else "")
        raise DataError(f"unknown label {text!r}.{near_miss(text, self._names)} Labels: {shown}")


class Outcome(Task):
    """Reads labels as they stand in a file; ``width`` is how many outputs a model has for them."""

    described: ClassVar[str]
    output: ClassVar[str] = "logits"

    @cached_property
    def _known(self) -> _Labels:
        return _Labels(self.labels or ())

    @property
    def said(self) -> dict[str, Any]:
        """What the signature says of answers."""
        return {"labels": list(self.labels)} if self.labels else {}

    @property
    def width(self) -> int:
        """Outputs a row."""
        raise NotImplementedError

    def target(self, value: Any) -> Any:
        """Return the target that a value of the label column stands for. Raises DataError saying what is wrong."""
        raise NotImplementedError

    def as_targets(self, found: Sequence[Any]) -> NDArray[Any]:
        """Return targets as an array, rows first."""
        raise NotImplementedError

    def strata(self, targets: NDArray[Any]) -> NDArray[np.int64]:
        """Return one number a row: rows of the same are dealt to the splits in proportion."""
        raise NotImplementedError

    def has(self, targets: NDArray[Any], label: int) -> NDArray[np.bool_]:
        """Return which rows have a label, by its place among ``labels``."""
        raise NotImplementedError

    def fit(self, targets: NDArray[Any]) -> None:
        """Learn from the training targets what the loss needs (weights of classes)."""


class OneLabel(Classification, Outcome):
    """One of ``labels``: cross-entropy, accuracy, macro-F1.

    ``class_weights: balanced`` weighs each class by rows / (classes · rows of the class).
    """

    described = "one of several labels"
    class_weights: str | Sequence[float] | None = None
    _weights: Tensor | None = None

    @property
    def width(self) -> int:
        return len(self.labels)

    def target(self, value: Any) -> int:
        return self._known.index(value)

    def as_targets(self, found: Sequence[Any]) -> NDArray[Any]:
        return np.asarray(found, np.int64)

    def strata(self, targets: NDArray[Any]) -> NDArray[np.int64]:
        return np.asarray(targets, np.int64)

    def has(self, targets: NDArray[Any], label: int) -> NDArray[np.bool_]:
        return np.asarray(targets == label)

    def fit(self, targets: NDArray[Any]) -> None:
        counts = np.bincount(targets, minlength=self.width)
        self._weights = _weights(self.class_weights, lambda: len(targets) / (self.width * counts))

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(out, y, self._weight_of(out))

    def smoothed_loss(self, out: Tensor, y: Tensor, smoothing: float) -> Tensor:
        return F.cross_entropy(out, y, self._weight_of(out), label_smoothing=smoothing)

    def _weight_of(self, out: Tensor) -> Tensor | None:
        return None if self._weights is None else self._weights.to(out)


class ManyLabels(Outcome):
    """Any of ``labels``, none too: binary cross-entropy, micro- and macro-F1.

    A file holds them in one column: a JSON list, or text with ``separator`` between labels. ``threshold`` is the
    probability above which a label is answered; ``fitted`` gives each label its own, by the F1 of the exported model on
    validation rows. Trainings go by one half. ``class_weights`` multiply the loss of a label where it holds;
    ``balanced``: by rows without it / rows with it.
    """

    described = "any of several labels"
    primary = "micro_f1"
    independent = True
    labels: Sequence[str] = ()
    separator: str = ","
    threshold: float | str = FITTED
    class_weights: str | Sequence[float] | None = None
    _weights: Tensor | None = None
    decides = True

    @property
    def said(self) -> dict[str, Any]:
        return {**super().said, "answer": "many"}

    @property
    def width(self) -> int:
        return len(self.labels)

    def target(self, value: Any) -> NDArray[np.float32]:
        if isinstance(value, str):
            value = labelled_rows.listed(value) if value.startswith("[") else value.split(self.separator)
        row = np.zeros(self.width, np.float32)
        for each in value or []:
            if not isinstance(each, str) or each.strip():
                row[self._known.index(each)] = 1
        return row

    def as_targets(self, found: Sequence[Any]) -> NDArray[Any]:
        return np.stack(found) if found else np.zeros((0, self.width), np.float32)

    def strata(self, targets: NDArray[Any]) -> NDArray[np.int64]:
        return np.where(targets.any(1), targets.argmax(1), -1).astype(np.int64)

    def has(self, targets: NDArray[Any], label: int) -> NDArray[np.bool_]:
        return np.asarray(targets[:, label] > 0)

    def fit(self, targets: NDArray[Any]) -> None:
        found = (np.asarray(targets) > 0).sum(0)  # one at least: rows are refused that lack one
        self._weights = _weights(self.class_weights, lambda: (len(targets) - found).clip(1) / found)

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        weights = None if self._weights is None else self._weights.to(out)
        return F.binary_cross_entropy_with_logits(out, y, pos_weight=weights)

    def metrics(self, out: NDArray[Any], y: NDArray[Any]) -> dict[str, float]:
        answers, truth = self.answer(out), y > 0
        hits = (answers & truth).sum(0)
        sizes = answers.sum(0) + truth.sum(0)
        occurs = sizes > 0
        return {
            "micro_f1": float(2 * hits.sum() / max(sizes.sum(), 1)),
            "macro_f1": float(np.mean(2 * hits[occurs] / sizes[occurs])) if occurs.any() else 0.0,
            "exact_match": float(np.mean(self.correct(answers, y))),
        }

    def answer(self, out: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(np.asarray(out) > 0)

    def correct(self, answer: NDArray[Any], y: NDArray[Any]) -> NDArray[np.bool_]:
        return np.asarray((answer == (y > 0)).all(-1))

    def agree(self, a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.bool_]:
        return np.asarray((a == b).all(-1))

    def probabilities(self, out: NDArray[Any]) -> NDArray[np.float32]:
        return np.asarray(1 / (1 + np.exp(-np.asarray(out, np.float64))), np.float32)

    def decision(self, out: NDArray[Any], y: NDArray[Any]) -> dict[str, Any]:
        if not isinstance(self.threshold, str):
            return {"thresholds": [self.threshold] * self.width}
        return {"thresholds": thresholds.fit(self.probabilities(out), y > 0)}

    def decided(self, out: NDArray[Any], signature: Mapping[str, Any]) -> NDArray[Any]:
        """Return how far each probability lies above its threshold: ``answer`` asks for the sign alone."""
        if "thresholds" not in signature:
            return out
        return np.asarray(self.probabilities(out) - np.array(signature["thresholds"], np.float64))


class Number(Outcome):
    """A number: squared error, in units of the training targets' standard deviation; ``centre`` is their mean.

    An answer within ``tolerance`` of the target is right, of another answer agrees.
    """

    described = "a number"
    output = "value"
    primary = "rmse"
    higher_is_better = False
    numeric = True
    tolerance: float = 0.0

    @property
    def width(self) -> int:
        return 1

    def target(self, value: Any) -> float:
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise DataError(f"{value!r} is no number") from None
        if not math.isfinite(number):
            raise DataError(f"{value!r} is no finite number")
        return number

    def as_targets(self, found: Sequence[Any]) -> NDArray[Any]:
        return np.asarray(found, np.float32)

    def strata(self, targets: NDArray[Any]) -> NDArray[np.int64]:
        tenths = np.quantile(targets, np.linspace(0.1, 0.9, 9)) if len(targets) else np.zeros(0)
        return np.searchsorted(tenths, targets).astype(np.int64)

    def higher_is_better_of(self, metric: str) -> bool:
        return metric == "within_tolerance"

    def fit(self, targets: NDArray[Any]) -> None:
        spread = float(np.std(targets, dtype=np.float64))
        self.centre, self.unit = float(np.mean(targets, dtype=np.float64)), spread or 1.0

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        return F.mse_loss(out.squeeze(-1) / self.unit, y / self.unit)

    def metrics(self, out: NDArray[Any], y: NDArray[Any]) -> dict[str, float]:
        error = self.answer(out) - y
        return {
            "rmse": float(np.sqrt(np.mean(error**2))),
            "mae": float(np.mean(np.abs(error))),
            "within_tolerance": float(np.mean(self.correct(self.answer(out), y))),
        }

    def answer(self, out: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(out)[..., 0]

    def correct(self, answer: NDArray[Any], y: NDArray[Any]) -> NDArray[np.bool_]:
        return np.asarray(np.abs(answer - y) <= self.tolerance)

    def agree(self, a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.bool_]:
        return np.asarray(np.abs(a - b) <= self.tolerance)


def _weights(given: str | Sequence[float] | None, balanced: Callable[[], NDArray[np.float64]]) -> Tensor | None:
    """Return a weight for each label [labels], or None."""
    if given is None:
        return None
    return torch.tensor(balanced() if given == "balanced" else list(given), dtype=torch.float32)
