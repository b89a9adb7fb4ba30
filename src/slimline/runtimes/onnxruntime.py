"""ONNX Runtime on the CPU, one session an export.

Several threads share each operator's work (``onnxruntime``) or the rows of a batch (``onnxruntime-rows``). Operators of
a small model are over before a second thread is awake; rows divide whatever the model.
"""

from __future__ import annotations

import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimline.errors import ArtifactError, InputError


class OnnxRuntime:
    """Runs ``file`` of an export directory with ``threads`` intra-op threads that don't spin when idle."""

    def __init__(self, directory: Path, threads: int | None, file: str = "model.onnx") -> None:
        import onnxruntime
        from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

        self._refused: type[Exception] = InvalidArgument
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # several sessions share a process when models are compared: spinning threads of one would slow the next
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        path = directory / file
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises its own undocumented classes
            raise ArtifactError(f"{path}: ONNX Runtime can't load it: {' '.join(str(error).split())}") from error
        self._outputs = [output.name for output in self._session.get_outputs()]

    def run(self, inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Raises InputError for values that a node can't take, such as a number that no row of an embedding has."""
        try:
            return dict(zip(self._outputs, self._session.run(self._outputs, inputs), strict=True))
        except self._refused as error:
            said = " ".join(str(error).split()).rpartition("Status Message: ")[2]
            raise InputError(f"the model can't take these values: {said}") from error

    def close(self) -> None:
        del self._session


class OnnxRuntimeRows:
    """Shares the rows of a batch out among ``threads`` threads (None: one a core); each runs its own rows alone.

    A single row takes one thread. Ranges that a model finds as it runs are those of a share of the batch. The threads
    keep to cores of their own: the kernel wakes several on the core of whoever wakes them, one after the other.
    """

    def __init__(self, directory: Path, threads: int | None, file: str = "model.onnx") -> None:
        self._threads = threads or len(os.sched_getaffinity(0))
        self._runtime = OnnxRuntime(directory, 1, file)
        which = itertools.count()
        self._pool = ThreadPoolExecutor(self._threads, "onnxruntime-rows", lambda: _keep_to(next(which), self._threads))

    def run(self, inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Raises InputError as OnnxRuntime does."""
        rows = min(len(array) for array in inputs.values())
        shares = min(self._threads, rows)
        if shares < 2:
            return self._runtime.run(inputs)
        bounds = [rows * at // shares for at in range(shares + 1)]
        parts = ({name: array[at:end] for name, array in inputs.items()} for at, end in itertools.pairwise(bounds))
        found = list(self._pool.map(self._runtime.run, parts))
        return {name: np.concatenate([share[name] for share in found]) for name in found[0]}

    def close(self) -> None:
        self._pool.shutdown()
        self._runtime.close()


def _keep_to(which: int, of: int) -> None:
    """Let the calling thread, one ``of`` so many, run on its share of the cores alone."""
    if own := sorted(os.sched_getaffinity(0))[which::of]:
        os.sched_setaffinity(0, own)
