"""scikit-learn's handwritten digits: 1,797 grey images of 8×8, ten classes; a whole chain in seconds."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from slimline.task import Classification, Split, cut


class Digits(Classification):
    """Digits with 297 test rows; ``seed`` fixes the draw of the splits."""

    labels = tuple("0123456789")
    augment_draws = 2

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    @cached_property
    def _splits(self) -> dict[str, Split]:
        from sklearn.datasets import load_digits

        bunch = load_digits()
        pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
        images = self.inputs_of(list(pixels))["image"]
        targets = bunch.target.astype(np.int64)
        parts = cut(targets, {"train": 0, "validation": 250, "calibration": 150, "test": 297}, self.seed)
        return {name: Split({"image": images[rows]}, targets[rows]) for name, rows in parts.items()}

    def splits(self) -> dict[str, Split]:
        return self._splits

    def augment(self, inputs: dict[str, Tensor], draws: Tensor) -> dict[str, Tensor]:
        """Shift each image by −1, 0 or 1 pixels along both axes."""
        from slimline.tasks.images import shift

        return {"image": shift(inputs["image"], draws, 1)}

    def signature(self) -> dict[str, Any]:
        return {
            "inputs": [{"name": "image", "dtype": "float32", "shape": ["batch", 1, 8, 8]}],
            "outputs": [{"name": "logits", "dtype": "float32", "shape": ["batch", 10]}],
            "labels": list(self.labels),
        }

    def preprocess(self) -> dict[str, Any]:
        return {
            "format": 1,
            "input": "image",
            "steps": [
                {"op": "decode_image", "mode": "L"},
                {"op": "resize", "size": [8, 8]},
                {"op": "normalize", "mean": [0.3053], "std": [0.3760]},
            ],
        }
