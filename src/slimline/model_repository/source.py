"""A release as Triton will serve it: what it answers to, what it measured, and the file that fits a backend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from slimline import manifest
from slimline.errors import ReleaseError

Backend = Literal["onnxruntime", "python", "tensorrt"]
Device = Literal["cpu", "gpu"]


@dataclass(frozen=True)
class Source:
    """``folder`` is the export of the stage that answers, ``digest`` its digest, ``revision`` the release's."""

    release: Path
    revision: str
    folder: Path
    digest: str
    card: Mapping[str, Any]
    signature: Mapping[str, Any]
    preprocess: Mapping[str, Any]
    facts: Mapping[str, Any]

    @property
    def stage(self) -> str:
        return str(self.card["last"])

    @property
    def measured(self) -> Mapping[str, Any]:
        """The stage's row of the benchmark."""
        row: Mapping[str, Any] = self.card["benchmark"]["stages"][self.stage]
        return row

    def format(self, name: str) -> Mapping[str, Any] | None:
        """Return the facts of an export format beside ``onnx``, or None when the release lacks it."""
        found: Mapping[str, Any] | None = self.facts.get("formats", {}).get(name)
        return found


def read(release: Path) -> Source:
    """Verify a release and return what Triton needs of it. Raises ArtifactError when a file of it is damaged."""
    if not (release / "card.json").is_file():
        raise ReleaseError(f"{release}: no release: it holds no card.json; 'dvc repro release' makes one")
    revision = manifest.verify(release)
    card = manifest.read_json(release / "card.json")
    manifest.check_format(card, release / "card.json", 1)
    folder = release / "chain" / card["last"]
    documents = {
        name: manifest.read_json(folder / f"{name}.json") if (folder / f"{name}.json").is_file() else {}
        for name in ("preprocess", "facts")
    }
    signature = manifest.read_json(folder / "signature.json")
    return Source(release, revision, folder, manifest.digest(folder), card, signature, **documents)


def model_file(source: Source, backend: Backend, device: Device) -> tuple[str, str]:
    """Return (format, file name) of what ``backend`` shall run on ``device``.

    Raises ReleaseError saying why nothing in the release fits, and which export format would.
    """
    if backend == "tensorrt":
        return "tensorrt", _engine(source, device)
    if device == "cpu":
        return "onnx", "model.onnx"
    if backend == "python":
        raise ReleaseError("--backend python runs ONNX Runtime on CPUs: take --backend onnxruntime with --device gpu")
    for name in ("onnx-trt", "onnx-fp16"):
        if found := source.format(name):
            return name, str(found["file"])
    if reason := _integers(source):
        raise ReleaseError(
            f"{source.folder}/model.onnx: {reason}: int8 for CPUs, GPUs reject it or fall back: add onnx-trt or "
            "onnx-fp16 to params.yaml: export.formats and release again, or take --device cpu"
        )
    return "onnx", "model.onnx"


def _engine(source: Source, device: Device) -> str:
    facts = source.format("tensorrt")
    if device == "cpu":
        raise ReleaseError("--backend tensorrt needs --device gpu")
    if facts is None or "engine" not in facts:
        raise ReleaseError(
            f"{source.release}: its stage {source.stage} has no engine: add tensorrt to params.yaml: export.formats"
        )
    if not str(facts["library"]).startswith("tensorrt "):
        raise ReleaseError(
            f"{source.folder}/{facts['engine']}: built by {facts['library']}, Triton runs full TensorRT's alone: "
            "export where a GPU and the package tensorrt are, or take --backend onnxruntime --device gpu with onnx-trt"
        )
    return str(facts["engine"])


def _integers(source: Source) -> str | None:
    """Return what in model.onnx a GPU's runtime rejects or misreads, or None for a model in floats."""
    try:
        from slimline.lint import tensorrt
        from slimline.lint.graph import read as parse
    except ModuleNotFoundError as error:
        if error.name != "onnx":
            raise
        variant = source.facts.get("variant", "fp32")
        return None if variant == "fp32" else f"its variant is {variant}"
    graph = parse(source.folder / "model.onnx")
    for rule in (tensorrt.zero_point, tensorrt.unsigned, tensorrt.integer_bias, tensorrt.width, tensorrt.operator):
        for finding in rule(graph):
            return f"{finding.node}: {finding.saw}"
    return None
