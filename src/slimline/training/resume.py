"""The state of an unfinished training, outside DVC's outputs, keyed by everything that decides its result."""

from __future__ import annotations

import errno
import hashlib
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import torch

from slimline import leftovers, manifest

FOLDER = Path(".slimline/training")
LITTLE = 2**20  # bytes: with less left, a failed write is a full disk


class State:
    """One file a training, replaced atomically after each epoch. ``inputs`` is JSON data: the key is its sha256."""

    def __init__(self, inputs: Any, folder: Path = FOLDER) -> None:
        self.folder = folder / hashlib.sha256(manifest.canonical(inputs)).hexdigest()[:32]
        self.path = self.folder / "state.pt"
        leftovers.sweep(folder)

    def load(self) -> dict[str, Any] | None:
        """Return the last saved state, or None. A damaged file counts as none: the training starts over."""
        try:
            state: dict[str, Any] = torch.load(self.path, weights_only=True, map_location="cpu")
        except (FileNotFoundError, EOFError, RuntimeError, pickle.UnpicklingError):
            return None
        return state

    def save(self, state: dict[str, Any]) -> None:
        """Replace the state on disk, whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
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
