"""What a runtime will refuse, misread or run slowly in an ONNX model, said before it is deployed. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from slimline.errors import ArtifactError, InputError, near_miss
from slimline.lint.finding import Finding

TARGETS = ("onnxruntime", "tensorrt")
FILES = {"tensorrt": ("model.trt.onnx", "model.onnx"), "onnxruntime": ("model.onnx",)}

__all__ = ["TARGETS", "Finding", "lint"]


def lint(model: Path, target: str) -> list[Finding]:
    """Return what ``target`` makes of an ONNX file, or of the file for it in an export directory.

    Raises InputError on an unknown target, ArtifactError on a file that is missing or no ONNX model.
    """
    if target not in TARGETS:
        raise InputError(f"--for {target}: unknown.{near_miss(target, list(TARGETS))} Known: {', '.join(TARGETS)}")
    return list(_findings(_file(model, target), target))


def _file(model: Path, target: str) -> Path:
    if not model.is_dir():
        return model
    found = next((model / name for name in FILES[target] if (model / name).is_file()), None)
    if found is None:
        raise ArtifactError(f"{model}: it holds no {' or '.join(FILES[target])}")
    return found


def _findings(path: Path, target: str) -> Iterator[Finding]:
    try:
        from slimline.lint import onnxruntime, tensorrt
        from slimline.lint.graph import read
    except ModuleNotFoundError as error:
        if error.name != "onnx":
            raise
        raise ArtifactError(f"{path}: linting needs onnx: pip install 'slimline[train]'") from error
    graph = read(path)
    yield from tensorrt.findings(graph) if target == "tensorrt" else onnxruntime.findings(graph)
