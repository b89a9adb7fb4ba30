"""The state of an unfinished training, outside DVC's outputs, keyed by everything that decides its result."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import torch

from slimline import leftovers, manifest
from slimline.errors import ArtifactError

FOLDER = Path(".slimline/training")
INPUTS = "inputs.json"
LITTLE = 2**20  # bytes: with less left, a failed write is a full disk


class State:
    """One file a training, replaced atomically after each epoch; beside it ``inputs``, whose sha256 is the key."""

    def __init__(self, inputs: dict[str, Any], folder: Path = FOLDER) -> None:
        text = manifest.canonical(inputs)
        self._inputs: dict[str, Any] = json.loads(text)
        self.folder = folder / hashlib.sha256(text).hexdigest()[:32]
        self.path = self.folder / "state.pt"
        leftovers.sweep(folder)

    def load(self) -> dict[str, Any] | None:
        """Return the last saved state, or None. A damaged file counts as none: the training starts over."""
        try:
            state: dict[str, Any] = torch.load(self.path, weights_only=True, map_location="cpu")
        except (FileNotFoundError, EOFError, RuntimeError, pickle.UnpicklingError):
            return None
        return state

    def differing(self, *same: str) -> dict[str, tuple[Any, Any]]:
        """Return {input: (what it was, what it is now)} of the latest other training with the ``same`` inputs.

        Empty where this one has a state of its own, or there is no other.
        """
        if self.path.is_file():
            return {}
        others = [(path.stat().st_mtime, path) for path in self.folder.parent.glob(f"*/{self.path.name}")]
        for _, path in sorted(others, reverse=True):
            try:
                before = manifest.read_json(path.with_name(INPUTS))
            except ArtifactError:  # it is of an older version, or damaged
                continue
            if all(before.get(name) == self._inputs[name] for name in same):
                return {
                    name: (before.get(name), value) for name, value in self._inputs.items() if before.get(name) != value
                }
        return {}

    def save(self, state: dict[str, Any]) -> None:
        """Replace the state on disk, whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / INPUTS).is_file():
            manifest.write_json(self.folder / INPUTS, self._inputs)
        scratch = self.path.with_suffix(f".{os.getpid()}.tmp")
        try:
            torch.save(state, scratch)
            with scratch.open("rb") as file:
                os.fsync(file.fileno())
            scratch.replace(self.path)
        except RuntimeError as error:  # torch reports a failed write so, whatever the cause
            if shutil.disk_usage(self.folder).free > LITTLE:
                raise
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path)) from error
        finally:
            scratch.unlink(missing_ok=True)

    def clear(self) -> None:
        """Forget the training: its result is safe elsewhere."""
        shutil.rmtree(self.folder, ignore_errors=True)
