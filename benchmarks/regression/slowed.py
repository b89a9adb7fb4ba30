"""ONNX Runtime in a process that has lost its speed: each call waits as long as the file DEMO_DELAY says (seconds)."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from slimline.runtimes.onnxruntime import OnnxRuntime


class Slowed(OnnxRuntime):
    """``SLIMLINE_RUNTIME=slowed:Slowed``; a file that isn't there is no delay."""

    def run(self, inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        path = Path(os.environ["DEMO_DELAY"])
        if path.is_file():
            time.sleep(float(path.read_text()))
        return super().run(inputs)
