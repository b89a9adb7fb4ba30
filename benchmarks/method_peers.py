"""What other tools make of the same teacher: the rows with ``stage: peer`` in benchmarks/methods.yaml.

    torch-pruning   benchmarks/channel_pruning.py, with the recovery of our own rows
    onnxruntime     its static (QDQ) and dynamic quantizers: benchmarks/post_training.py
    nncf            its post-training quantization: the same file (``pip install 'slimline[peers]'``)

Each calibrates on the same rows and trains for as long. All are measured like the rest, in the target's runtime.
"""

from __future__ import annotations

import hashlib
import shutil
import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import channel_pruning
import post_training

from slimline import manifest
from slimline.errors import SlimlineError
from slimline.params import Recovery
from slimline.stage import Stage

CODE = (__file__, channel_pruning.__file__, post_training.__file__)


class MissingToolError(SlimlineError):
    """A peer whose package isn't installed."""


def identity(section: dict[str, Any]) -> dict[str, Any]:
    """Return what a peer's result hangs on beside the teacher: its settings, its version, the code that drives it."""
    tool = section["tool"]
    try:
        installed = version(tool)
    except PackageNotFoundError as error:
        raise MissingToolError(f"{tool} isn't installed: pip install 'slimline[peers]'") from error
    code = [hashlib.sha256(Path(each).read_bytes()).hexdigest() for each in CODE]
    return {**section, "version": installed, "code": code}


def make(section: dict[str, Any], stage: Stage, teacher: Path, scratch: Path) -> Path:
    """Let a tool compress the teacher, whose export is ``teacher``, and return the folder of what it wrote."""
    tools: dict[str, Callable[..., int | None]] = {
        "torch-pruning": _pruned,
        "onnxruntime": _quantized,
        "nncf": post_training.nncf,
    }
    export = scratch / "export"
    with manifest.sealed(export) as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("signature.json", "preprocess.json"):
            shutil.copy(teacher / name, folder / name)
        settings = {key: value for key, value in section.items() if key != "tool"}
        macs = tools[section["tool"]](stage, teacher / "model.onnx", folder / "model.onnx", **settings)
        before = manifest.read_json(teacher / "facts.json")["macs"]
        manifest.write_json(folder / "facts.json", {"macs": before if macs is None else macs})
    return export


def _quantized(stage: Stage, source: Path, target: Path, calibrator: str | None = None) -> None:
    if calibrator is None:
        post_training.dynamic(stage, source, target)
    else:
        post_training.static(stage, source, target, calibrator)


def _pruned(stage: Stage, source: Path, target: Path, importance: str, ratio: float, recovery: dict[str, Any]) -> int:
    del source  # it prunes the PyTorch model
    settings = Recovery.model_validate(recovery)
    return channel_pruning.pruned(stage, target, importance, ratio, settings, "benchmarks/methods.yaml: recovery")
