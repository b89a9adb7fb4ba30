"""OpenVINO on the CPU, one compiled model an export.

Its precision is always set: left alone, OpenVINO runs float32 models in bfloat16 on CPUs that have AVX512_BF16, which
is faster and changes answers. ``openvino`` computes in float32, ``openvino-bf16`` in bfloat16 where the CPU can.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, ClassVar

from numpy.typing import NDArray

from slimline.errors import ArtifactError, PluginError


class OpenVino:
    """Runs ``file`` of an export directory with ``threads`` threads (None: OpenVINO's choice) in one stream."""

    precision: ClassVar[str] = "f32"

    def __init__(self, directory: Path, threads: int | None, file: str = "model.onnx") -> None:
        try:
            import openvino
        except ImportError as error:
            raise PluginError(
                "the runtime openvino needs the package openvino: pip install 'slimline[openvino]'"
            ) from error
        config: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": self.precision,
        }
        if threads is not None:
            config["INFERENCE_NUM_THREADS"] = threads
        path = directory / file
        try:
            self._compiled = openvino.Core().compile_model(path, "CPU", config)
        except Exception as error:  # whatever OpenVINO's frontends raise
            raise ArtifactError(f"{path}: OpenVINO can't load it: {' '.join(str(error).split())[:300]}") from error
        self._outputs = [output.any_name for output in self._compiled.outputs]
        self._requests = threading.local()  # an infer request answers one caller at a time

    @property
    def computes_in(self) -> str:
        """The precision that OpenVINO really computes float layers in: ``f32`` or ``bf16``."""
        import openvino

        used = self._compiled.get_property("INFERENCE_PRECISION_HINT")
        return {openvino.Type.f32: "f32", openvino.Type.bf16: "bf16"}.get(used, str(used))

    def run(self, inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        request = getattr(self._requests, "own", None)
        if request is None:
            request = self._requests.own = self._compiled.create_infer_request()
        found = request.infer(inputs, share_inputs=True)
        return {name: found[index] for index, name in enumerate(self._outputs)}

    def close(self) -> None:
        del self._requests, self._compiled


class OpenVinoBf16(OpenVino):
    """The same in bfloat16 where the CPU has it; answers differ a little from float32's, so they are measured too."""

    precision: ClassVar[str] = "bf16"
