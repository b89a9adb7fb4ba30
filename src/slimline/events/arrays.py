"""One array of any dtype and shape as bytes: NumPy's own .npy format, which says both, without pickles."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray


def pack(array: NDArray[Any]) -> bytes:
    """Return an array as .npy bytes; raise ValueError for one that holds Python objects."""
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()


def unpack(data: bytes) -> NDArray[Any]:
    """Return the array that ``pack`` packed."""
    array: NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
    return array
