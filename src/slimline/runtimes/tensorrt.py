"""TensorRT engines on the GPU they were built for, one execution context an engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimline import cuda, engines
from slimline.errors import ArtifactError

FIRST_PROFILE = 0


class TensorRt:
    """Runs ``file`` of an export directory. ``threads`` is the host's and means nothing here.

    A batch beyond the profile's largest runs in parts. Raises ArtifactError where no GPU is present, or where the
    engine was built for others.
    """

    def __init__(self, directory: Path, threads: int | None, file: str = "model.engine") -> None:  # noqa: ARG002
        path = directory / file
        if not path.is_file():
            raise ArtifactError(f"{path}: missing: add tensorrt to params.yaml: export.formats")
        self._gpu = cuda.Gpu()
        self._trt = engines.library()
        self._engine = self._trt.Runtime(engines.logger(self._trt)).deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            raise ArtifactError(f"{path}: TensorRT can't load it for SM{cuda.capability()}: build it for this GPU")
        self._context = self._engine.create_execution_context()
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        modes = {name: self._engine.get_tensor_mode(name) for name in names}
        self._inputs = [name for name in names if modes[name] == self._trt.TensorIOMode.INPUT]
        self._outputs = [name for name in names if name not in self._inputs]
        self._largest = int(self._engine.get_tensor_profile_shape(self._inputs[0], FIRST_PROFILE)[2][0])

    def run(self, inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        self._gpu.enter()
        rows = len(inputs[self._inputs[0]])
        parts = [
            self._run({name: inputs[name][start : start + self._largest] for name in self._inputs})
            for start in range(0, rows, self._largest)
        ]
        return (
            parts[0] if len(parts) == 1 else {name: np.concatenate([each[name] for each in parts]) for name in parts[0]}
        )

    def _run(self, inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        for name, array in inputs.items():
            held = np.ascontiguousarray(array)
            address = self._gpu.buffer(name, held.nbytes)
            self._gpu.send(held, address)
            self._context.set_input_shape(name, held.shape)
            self._context.set_tensor_address(name, address)
        made = {}
        for name in self._outputs:
            shape = tuple(self._context.get_tensor_shape(name))
            dtype = np.dtype(self._trt.nptype(self._engine.get_tensor_dtype(name)))
            address = self._gpu.buffer(name, int(np.prod(shape)) * dtype.itemsize)
            self._context.set_tensor_address(name, address)
            made[name] = address, shape, dtype
        if not self._context.execute_async_v3(self._gpu.stream):
            raise ArtifactError("TensorRT: the engine fails to run")
        return {name: self._gpu.fetch(*each) for name, each in made.items()}

    def close(self) -> None:
        del self._context, self._engine
        self._gpu.close()
