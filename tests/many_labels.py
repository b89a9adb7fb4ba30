"""A real release of which any of several labels may be the answer: the digits', read by a sigmoid a label."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from slimline import manifest


def write_release(
    release: Path, target: Path, resealed: Callable[..., Path], thresholds: list[float] | None = None
) -> Path:
    """Copy a release of the digits; each of its rows has one true label, or that and the next where it is odd."""

    def change(folder: Path, card: dict[str, Any]) -> None:
        for name in card["chain"]:
            stage = folder / "chain" / name
            signature = manifest.read_json(stage / "signature.json") | {"answer": "many"}
            signature |= {"thresholds": thresholds} if thresholds else {}
            manifest.write_json(stage / "signature.json", signature)
            (stage / manifest.MANIFEST).unlink()
            with manifest.sealed(folder / "sealed") as scratch:
                shutil.copytree(stage, scratch, dirs_exist_ok=True)
            shutil.rmtree(stage)
            (folder / "sealed").rename(stage)
        for name in ("golden.npz", "reference.npz"):
            with np.load(folder / name) as arrays:
                found = dict(arrays)
            truth = found["targets"].astype(int)
            found["targets"] = np.eye(10, dtype=np.float32)[truth]
            odd = truth % 2 == 1
            found["targets"][odd, (truth[odd] + 1) % 10] = 1
            np.savez(folder / name, **found)

    return resealed(release, target, change)
