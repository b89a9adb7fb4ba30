"""Which of three growers made a wine: scikit-learn's bundled table of 178 wines, 13 chemical measurements each."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from slimline.task import Classification, Split, cut

FEATURES = 13


class Wine(Classification):
    """The table with 36 test rows; ``seed`` fixes the draw of the splits. Growers count alike, whatever their share."""

    labels = ("grower 1", "grower 2", "grower 3")
    metric_names = ("accuracy", "balanced-accuracy")
    primary = "balanced_accuracy"
    augment_draws = FEATURES

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    @cached_property
    def _table(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        from sklearn.datasets import load_wine

        bunch = load_wine()
        return bunch.data, bunch.target.astype(np.int64)

    @cached_property
    def _parts(self) -> dict[str, NDArray[np.int64]]:
        return cut(self._table[1], {"train": 0, "validation": 36, "calibration": 20, "test": 36}, self.seed)

    @cached_property
    def _splits(self) -> dict[str, Split]:
        table, targets = self._table
        features = self.inputs_of(table.tolist())["features"]
        return {name: Split({"features": features[rows]}, targets[rows]) for name, rows in self._parts.items()}

    def splits(self) -> dict[str, Split]:
        return self._splits

    def augment(self, inputs: dict[str, Tensor], draws: Tensor) -> dict[str, Tensor]:
        """Add an error of measurement to each feature, at most a fifth of its spread."""
        return {"features": inputs["features"] + 0.4 * (draws - 0.5)}

    def signature(self) -> dict[str, Any]:
        return {
            "inputs": [{"name": "features", "dtype": "float32", "shape": ["batch", FEATURES]}],
            "outputs": [{"name": "logits", "dtype": "float32", "shape": ["batch", len(self.labels)]}],
            "labels": list(self.labels),
        }

    def preprocess(self) -> dict[str, Any]:
        """Standardize by the training rows' own mean and spread, which so become part of every export."""
        train = self._table[0][self._parts["train"]]
        mean, std = (np.round(values, 6).tolist() for values in (train.mean(0), train.std(0)))
        return {"format": 1, "input": "features", "steps": [{"op": "standardize", "mean": mean, "std": std}]}
