"""Whether a file of weights holds all of a teacher, so that it is measured and not trained: ``init --weights``."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from slimline import plugins
from slimline.errors import ArtifactError, ParamsError
from slimline.teachers import checkpoints


class Weights:
    """A file of weights, read once however many models are looked for in it."""

    def __init__(self, file: Path) -> None:
        self.file = file

    @cached_property
    def _tensors(self) -> dict[str, Tensor]:
        if self.file.is_dir():
            raise ParamsError(
                f"--weights: {self.file}: a folder; give the file in it, or, where transformers saved it, --model "
                f"{self.file} alone"
            )
        if self.file.name.endswith(checkpoints.INDEX):
            raise ParamsError(
                f"--weights: {self.file}: it lists files of weights and holds none; give --model {self.file.parent} "
                "alone"
            )
        if not self.file.is_file():
            raise ParamsError(
                f"--weights: {self.file}: no such file; a state dict, a checkpoint or safetensors is expected"
            )
        return checkpoints.read(self.file)

    def lacks(self, name: str, args: dict[str, Any]) -> list[str]:
        """Return the names of the tensors that the model ``name`` with ``args`` has and the file has none for.

        Raises ParamsError where the file isn't one of weights, or of another model's.
        """
        try:
            held = self._tensors
            return checkpoints.fill(plugins.find("models", name, where="--model")(**args), held, self.file)
        except ArtifactError as error:
            raise ParamsError(f"--weights: {error}") from error

    def pooling(self, source: str, classes: int) -> str:
        """Return what stands on an encoder: ``head``, the one of its own library, where that is there whole."""
        try:
            whole = not self.lacks("hf-encoder", {"source": source, "pooling": "head", "classes": classes})
        except ParamsError:  # the file's own fault is told when the encoder alone is looked for
            whole = False
        return "head" if whole else "mean"

    def said(self, missing: list[str], labels: list[str], pooling: str | None = None) -> str:
        """Return what the file is worth, in words; ``pooling`` is that of an encoder."""
        if missing:
            return f"{self.file} has no {missing[0]} ({len(missing)} tensors in all): the teacher is trained from it"
        order = f"; its outputs are taken for {', '.join(labels)} in this order" if labels else ""
        mean = "; it is taken for one of mean pooling (pooling: cls in params.yaml, if not)"
        return f"{self.file} has all of the model: it is measured as it is{order}{mean if pooling == 'mean' else ''}"
