"""Numbers that say how input rows look, whatever the task: what drift of inputs is seen by. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

CHUNK = 256


def input_features(inputs: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.float32]]:
    """Return {INPUT.FEATURE: value a row}.

    Of numbers: ``mean``, ``deviation`` (how far the values stand apart) and ``roughness``, the mean step between
    neighbours along the last axis, which blur lowers and noise raises. Of integers, such as token ids: ``filled``, the
    share that isn't 0.
    """
    found: dict[str, NDArray[np.float32]] = {}
    for name, array in inputs.items():
        if np.issubdtype(array.dtype, np.floating):
            parts = [_numbers(array[at : at + CHUNK]) for at in range(0, len(array), CHUNK)]
            columns = np.concatenate(parts, axis=1) if parts else np.zeros((3, 0), np.float32)
            found |= {f"{name}.{feature}": columns[i] for i, feature in enumerate(("mean", "deviation", "roughness"))}
        else:
            filled = (array.reshape(len(array), -1) != 0).mean(1, dtype=np.float32)
            found[f"{name}.filled"] = filled.astype(np.float32)
    return found


def _numbers(array: NDArray[np.generic]) -> NDArray[np.float32]:
    values = np.asarray(array, np.float32)
    flat = values.reshape(len(values), -1)
    steps = np.abs(np.diff(values, axis=-1)).reshape(len(values), -1)
    rough = steps.mean(1) if steps.shape[1] else np.zeros(len(values), np.float32)
    return np.stack([flat.mean(1), flat.std(1), rough]).astype(np.float32)
