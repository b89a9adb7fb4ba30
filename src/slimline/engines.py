"""TensorRT behind one small face: parse an ONNX model, build an engine. Needs no torch.

TensorRT for RTX (PyPI: tensorrt-rtx-cu13) parses and builds without a GPU, for the compute capabilities that are
named; one engine serves them all. Full TensorRT is taken where it and a GPU are present; it builds for that GPU.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from slimline import cuda, manifest
from slimline.errors import ExportError

MISSING = "TensorRT is not installed: pip install 'slimline[tensorrt]'"
Shape = tuple[int, ...]
Profile = Mapping[str, tuple[Shape, Shape, Shape]]


def is_installed() -> bool:
    """Return whether any TensorRT that can be used here is installed. Imports nothing."""
    return bool(_names())


def _names() -> list[str]:
    wanted = ["tensorrt", "tensorrt_rtx"] if cuda.capability() is not None else ["tensorrt_rtx"]
    return [name for name in wanted if find_spec(name) is not None]


def library() -> Any:
    """Import and return full TensorRT where a GPU is present, else TensorRT for RTX.

    Raises ExportError naming the extra when none is installed.
    """
    names = _names()
    if not names:
        raise ExportError(MISSING)
    return importlib.import_module(names[0])


def version() -> str:
    """Return the library's name and version, such as ``tensorrt-rtx 1.7.1.116``."""
    trt = library()
    return f"{trt.__name__.replace('_', '-')} {trt.__version__}"


def run_here(export: Path) -> bool:
    """Return whether an export directory holds an engine for this machine's GPU."""
    written = manifest.read_json(export / "facts.json").get("formats", {})
    return any("engine" in each and cuda.capability() in each["compute"] for each in written.values())


class Parsed:
    """An ONNX model in TensorRT's parser. ``errors`` are (node index or −1, operator, message); empty: accepted."""

    def __init__(self, model: bytes) -> None:
        self._trt = trt = library()
        self._log = logger(trt)
        self._builder = trt.Builder(self._log)
        self._network = self._builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        self._parser = trt.OnnxParser(self._network, self._log)
        accepted = self._parser.parse(model)
        found = [self._parser.get_error(index) for index in range(self._parser.num_errors)]
        self.errors: list[tuple[int, str, str]] = [
            (error.node(), error.node_operator(), _reason(error.desc())) for error in found
        ]
        if not accepted and not self.errors:
            self.errors = [(-1, "", self._reported())]

    def build(self, profile: Profile, compute: Sequence[int]) -> bytes:
        """Return a serialized engine for shapes within ``profile`` {input: (least, best, most)}.

        ``compute`` are the capabilities it shall run on (86: SM86); full TensorRT knows only that of its GPU. Raises
        ExportError with TensorRT's own words.
        """
        if self.errors:
            raise ExportError(f"TensorRT rejects the model: {self.errors[0][2]}")
        trt = self._trt
        config = self._builder.create_builder_config()
        if hasattr(config, "num_compute_capabilities"):
            config.num_compute_capabilities = len(compute)
            for index, each in enumerate(compute):
                config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{each}"), index)
        shapes = self._builder.create_optimization_profile()
        for name, (least, best, most) in profile.items():
            shapes.set_shape(name, least, best, most)
        config.add_optimization_profile(shapes)
        engine = self._builder.build_serialized_network(self._network, config)
        if engine is None:
            raise ExportError(f"TensorRT can't build an engine: {self._reported()}")
        return bytes(engine)

    def _reported(self) -> str:
        lines: list[str] = self._log.lines
        return _reason("\n".join(lines)) if lines else "it gives no reason"


def logger(trt: Any) -> Any:
    """Return a logger that keeps errors in ``lines`` instead of printing them."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.lines: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.Severity.ERROR:
                self.lines.append(message)

    return Log()


def _reason(text: str) -> str:
    """Return the line of TensorRT's message that says what is wrong, without where in its own source that was."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and "checkMacros" not in line]
    line = next((each for each in lines if "Error Code" in each), lines[0] if lines else text)
    head, _, detail = line.partition("Error (")
    return (detail or head).split(" In ")[0].strip()
