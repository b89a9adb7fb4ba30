"""Whether a file of weights holds all of a teacher, so that it is measured and not trained: ``init --weights``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from slimline import checkpoints, plugins
from slimline.errors import ArtifactError, ParamsError


def lacks(file: Path, name: str, args: dict[str, Any]) -> list[str]:
    """Return the names of the tensors that the model ``name`` with ``args`` has and ``file`` has none for.

    Raises ParamsError where the file isn't one of weights, or of another model's.
    """
    if not file.is_file():
        raise ParamsError(f"--weights: {file}: no such file; a state dict, a checkpoint or safetensors is expected")
    try:
        return checkpoints.load(plugins.find("models", name, where="--model")(**args), str(file))
    except ArtifactError as error:
        raise ParamsError(f"--weights: {error}") from error


def pooling(file: Path, source: str, classes: int) -> str:
    """Return what stands on an encoder in ``file``: ``head``, the one of its own library, where that is there whole."""
    try:
        whole = not lacks(file, "hf-encoder", {"source": source, "pooling": "head", "classes": classes})
    except ParamsError:  # the file's own fault is told when the encoder alone is looked for
        whole = False
    return "head" if whole else "mean"


def said(file: Path, missing: list[str], labels: list[str], pooling: str | None = None) -> str:
    """Return what the file is worth, in words; ``pooling`` is that of an encoder."""
    if missing:
        return f"{file} has no {missing[0]} ({len(missing)} tensors in all): the teacher is trained from it"
    order = f"; its outputs are taken for {', '.join(labels)} in this order" if labels else ""
    taken = "; it is taken for one of mean pooling (pooling: cls in params.yaml, if not)" if pooling == "mean" else ""
    return f"{file} has all of the model: it is measured as it is{order}{taken}"
