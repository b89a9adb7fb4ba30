"""Preprocessing steps. Servers run them, so nothing here imports torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from slimline.errors import DataError


def standardize(
    values: Sequence[Sequence[float]], *, mean: Sequence[float], std: Sequence[float]
) -> NDArray[np.float32]:
    """Turn rows of numbers into one float32 batch N × features: (x − mean) / std, per feature."""
    for index, row in enumerate(values):
        if len(row) != len(mean):
            raise DataError(f"row {index}: {len(row)} numbers, expected {len(mean)}")
    return ((np.asarray(values, np.float64) - mean) / std).astype(np.float32)
