"""What the signals stand beside: an alert on a sliding window's accuracy, and NannyML's CBPE in its own process."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

NANNYML = Path(".venv/nannyml/bin/python")
SCRIPT = Path(__file__).parent / "cbpe.py"
CHUNK = 500


def window_alarm(right: NDArray[np.bool_], window: int, floor: float) -> int:
    """Return the first row at which the share of the last ``window`` rows that were right is below ``floor``, or −1."""
    sums = np.concatenate([[0], np.cumsum(right)])
    low = np.flatnonzero((sums[window:] - sums[:-window]) / window < floor)
    return int(low[0]) + window - 1 if len(low) else -1


def cbpe_alarms(
    reference: tuple[NDArray[np.float32], NDArray[np.int64]], streams: Sequence[NDArray[np.float32]]
) -> list[int]:
    """Return, a stream, the last row of the first of CBPE's chunks that alerts, or −1.

    ``reference`` are probabilities [rows, k] and truth [rows]; a stream is probabilities [rows, k].
    """
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "streams.npz"
        arrays = {f"stream/{i}": stream for i, stream in enumerate(streams)}
        np.savez(path, probabilities=reference[0], truth=reference[1], **arrays)
        command = [str(NANNYML), str(SCRIPT), str(path), str(CHUNK)]
        quiet = os.environ | {"NML_DISABLE_USAGE_LOGGING": "1"}  # or it reports each call to its makers
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=quiet)
    found: list[int] = json.loads(done.stdout.splitlines()[-1])
    return found
