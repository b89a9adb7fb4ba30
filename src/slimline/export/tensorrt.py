"""A TensorRT engine, built from the ``onnx-trt`` file. TensorRT for RTX needs no GPU for that."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from torch import nn

from slimline import cuda, engines
from slimline.engines import Profile
from slimline.errors import ExportError
from slimline.export import onnx_trt

FILE = "model.engine"
Capability = Literal[75, 80, 86, 89, 120, 121]


@dataclass(frozen=True)
class TensorRt:
    """``compute``: the compute capabilities to run on (86: SM86). ``batch_sizes``: the target's, when left out.

    ``axes``: [least, best, most] of named axes beside the batch.
    """

    compute: Annotated[list[Capability], Field(min_length=1)] = field(default_factory=lambda: [80, 86, 89, 120])
    batch_sizes: list[Annotated[int, Field(ge=1)]] = field(default_factory=lambda: [1])
    axes: dict[str, Annotated[list[int], Field(min_length=3, max_length=3)]] = field(default_factory=dict)

    reads: ClassVar[tuple[str, ...]] = ("onnx-trt",)

    def check(self, signature: Mapping[str, Any], where: str) -> None:
        """Raise ExportError where TensorRT is not installed or an axis has no range; ``where`` is the file and key."""
        if not engines.is_installed():
            raise ExportError(f"{where}: {engines.MISSING}")
        profile(signature, self.batch_sizes, self.axes)

    def __call__(
        self, model: nn.Module, signature: Mapping[str, Any], directory: Path, metadata: Mapping[str, str]
    ) -> dict[str, Any]:
        """Write ``directory``/model.engine, and model.trt.onnx where ``onnx-trt`` hasn't yet.

        Raises ExportError when TensorRT is not installed, rejects the model or can't build it.
        """
        source = directory / onnx_trt.FILE
        facts = {} if source.is_file() else onnx_trt.OnnxTrt()(model, signature, directory, metadata)
        shapes = profile(signature, self.batch_sizes, self.axes)
        started = time.monotonic()
        (directory / FILE).write_bytes(engines.Parsed(source.read_bytes()).build(shapes, self.compute))
        here = cuda.capability()
        return facts | {
            "engine": FILE,
            "library": engines.version(),
            "compute": self.compute if "rtx" in engines.version() else [here],
            "profile": {name: [list(each) for each in sizes] for name, sizes in shapes.items()},
            "seconds": round(time.monotonic() - started, 2),
        }


def profile(
    signature: Mapping[str, Any], batch_sizes: Sequence[int], axes: Mapping[str, Sequence[int]] | None = None
) -> Profile:
    """Return {input: (least, best, most) shape}: the batch goes from 1 over the middle to the largest size.

    ``axes`` has [least, best, most] of every other named axis. Raises ExportError naming the one it lacks.
    """
    ordered = sorted(batch_sizes)
    ranges = {signature["inputs"][0]["shape"][0]: (1, ordered[len(ordered) // 2], ordered[-1]), **(axes or {})}
    found = {}
    for spec in signature["inputs"]:
        for axis in spec["shape"]:
            if isinstance(axis, str) and axis not in ranges:
                raise ExportError(
                    f"input {spec['name']!r}: TensorRT needs a range for axis {axis!r}: add "
                    f"axes: {{{axis}: [least, best, most]}} to tensorrt in params.yaml: export.formats"
                )
        least, best, most = (
            tuple(int(ranges[axis][at]) if isinstance(axis, str) else int(axis) for axis in spec["shape"])
            for at in range(3)
        )
        found[spec["name"]] = (least, best, most)
    return found
