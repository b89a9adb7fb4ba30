"""What a release answers to the test rows, as they are, worn down and broken: streams are drawn from it.

Broken are copies of the last stage's own export. ``miscalibrated``: the ranges of its activations are too narrow by a
factor, as after calibration on the wrong data. ``two classes``: their logits are lowered, as after pruning away what
they need. The strength is searched so that a given share of the test rows is lost. Worn down are the inputs.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from slimline import benchmark, manifest, plugins
from slimline.predictor import Predictor
from slimline.task import Split

CACHE = Path(".slimline/monitoring")
POINTS = (3, 5, 8, 12)
STEPS = 10  # of the search: the loss is met within a few rows


@dataclass(frozen=True, eq=False)
class Recorded:
    """One scenario: raw outputs [rows, k] of the teacher and the last stage, and how the rows look to the signals."""

    teacher: NDArray[np.float32]
    last: NDArray[np.float32]
    inputs: Mapping[str, NDArray[Any]]


class Recordings:
    """Answers of one release's chain, kept in .slimline/monitoring under the release's digest."""

    def __init__(self, release: Path) -> None:
        self.release = release
        self.card = manifest.read_json(release / "card.json")
        self.last = self.card["last"]
        task = self.card["task"]
        self.task = plugins.find("tasks", task["name"])(**task.get("args", {}))
        self.folder = CACHE / manifest.digest(release).rpartition(":")[2][:16]
        self.folder.mkdir(parents=True, exist_ok=True)

    @cached_property
    def test(self) -> Split:
        """The rows that streams are drawn from."""
        return self.task.splits()["test"]

    @property
    def labels(self) -> NDArray[np.int64]:
        """Their truth."""
        return np.asarray(self.test.targets, np.int64)

    def accuracy(self, raw: NDArray[np.float32]) -> float:
        """The share of the test rows that raw outputs get right."""
        return float(np.mean(raw.argmax(1) == self.labels))

    @cached_property
    def good(self) -> Recorded:
        """The release as it is, on the rows as they are."""
        return Recorded(
            self._answers("teacher", "as is", self.test.inputs), self._own("as is", self.test.inputs), self.test.inputs
        )

    def broken(self, how: str, points: float) -> Recorded:
        """The last stage with ``points`` of 100 rows lost, ``how`` one of ``miscalibrated`` and ``two classes``."""
        make = {"miscalibrated": self._miscalibrated, "two classes": self._two_classes}[how]
        target = self.accuracy(self.good.last) - points / 100

        def searched() -> NDArray[np.float32]:
            weak, strong = 0.0, 1.0
            found, distance = self.good.last, np.inf
            for _ in range(STEPS):
                middle = (weak + strong) / 2
                raw = make(middle)
                gap = self.accuracy(raw) - target
                if abs(gap) < distance:
                    found, distance = raw, abs(gap)
                weak, strong = (middle, strong) if gap > 0 else (weak, middle)
            return found

        return Recorded(self.good.teacher, self._kept(f"{how} {points}", searched), self.test.inputs)

    def worn(self, how: str, strength: float) -> Recorded:
        """The release as it is on images that are blurred (sigma, pixels) or turned (degrees)."""
        inputs = self._worn(how, strength)
        return Recorded(
            self._answers("teacher", f"{how} {strength}", inputs), self._own(f"{how} {strength}", inputs), inputs
        )

    def chain(self, line: Sequence[str], how: str = "as is", strength: float = 0.0) -> dict[str, NDArray[np.float32]]:
        """Raw outputs {stage: [rows, k]} of every stage, on the rows as they are or worn down."""
        inputs, name = self.test.inputs, how
        if strength:
            inputs, name = self._worn(how, strength), f"{how} {strength}"
        return {stage: self._answers(stage, name, inputs) for stage in line}

    def _worn(self, how: str, strength: float) -> Mapping[str, NDArray[Any]]:
        from scipy import ndimage

        images = self.test.inputs["image"]
        axes = tuple(range(2, images.ndim))
        if how == "blur":
            changed = ndimage.gaussian_filter(images, strength, axes=axes)
        else:
            dark = float(images.min())
            changed = ndimage.rotate(images, strength, axes=axes, reshape=False, order=1, cval=dark)
        return {"image": changed.astype(images.dtype)}

    def _own(self, name: str, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        return self._answers(self.last, name, inputs)

    def _answers(self, stage: str, name: str, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        return self._kept(f"{stage} {name}", lambda: _answered(self.release / "chain" / stage, inputs))

    def _kept(self, name: str, make: Callable[[], NDArray[np.float32]]) -> NDArray[np.float32]:
        path = self.folder / f"{name.replace(' ', '-')}.npy"
        if not path.is_file():
            tqdm.write(f"recording: {name}")
            np.save(path, make())
        return np.asarray(np.load(path), np.float32)

    def _miscalibrated(self, strength: float) -> NDArray[np.float32]:
        """Answers with the scale of every quantized activation multiplied by 1 − ``strength``."""
        import onnx
        from onnx import numpy_helper

        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "export"
            with manifest.sealed(folder) as copy:
                shutil.copytree(self.release / "chain" / self.last, copy, dirs_exist_ok=True)
                (copy / manifest.MANIFEST).unlink()
                model = onnx.load(copy / "model.onnx")
                scales = {node.input[1] for node in model.graph.node if node.op_type == "QuantizeLinear"}
                assert scales, f"{self.last} has no quantized activations"
                for tensor in model.graph.initializer:
                    if tensor.name in scales:
                        scaled = numpy_helper.to_array(tensor) * np.float32(max(1 - strength, 1e-3))
                        tensor.CopyFrom(numpy_helper.from_array(scaled, tensor.name))
                onnx.save(model, copy / "model.onnx")
            return _answered(folder, self.test.inputs)

    def _two_classes(self, strength: float) -> NDArray[np.float32]:
        """Answers with the logits of the third and the seventh class lowered by up to 20."""
        raw = self.good.last.copy()
        raw[:, [2, 6]] -= 20 * strength
        return raw


def _answered(folder: Path, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    predictor = Predictor(folder, threads=1)
    try:
        return benchmark.outputs(predictor, inputs).astype(np.float32)
    finally:
        predictor.close()
