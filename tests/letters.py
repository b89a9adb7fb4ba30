"""An installed plug-in whose preprocessing step reads text, and a release that it makes ready for raw text."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from slimline import manifest, plugins

STEP = '''"""Text to an image: a letter a pixel."""

import numpy as np

from slimline.errors import DataError


def letters(values, *, size):
    images = np.zeros((len(values), size * size), np.float32)
    for row, text in enumerate(values):
        if not isinstance(text, str):
            raise DataError(f"row {row}: expected text")
        codes = [ord(letter) % 17 for letter in text[: size * size]]
        images[row, : len(codes)] = codes
    return images.reshape(-1, 1, size, size) / np.float32(16)
'''


@contextmanager
def installed(folder: Path) -> Iterator[Path]:
    """Lay the distribution out in ``folder``, as pip does, and let this process find it."""
    info = folder / "slimline_letters-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: slimline-letters\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[slimline.preprocess]\nletters = slimline_letters:letters\n")
    (folder / "slimline_letters.py").write_text(STEP)
    sys.path.insert(0, str(folder))
    _forget()
    try:
        yield folder
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop("slimline_letters", None)
        _forget()


def _forget() -> None:
    plugins._all_entry_points.cache_clear()
    plugins._entry_points.cache_clear()


def release_of_text(source: Path, target: Path, resealed: Callable[..., Path]) -> Path:
    """Copy a release; the copy's raw input is text."""

    def change(folder: Path, card: dict[str, Any]) -> None:
        stage = folder / "chain" / card["last"]
        steps = [{"op": "letters", "size": 8}]
        manifest.write_json(stage / "preprocess.json", {"format": 1, "input": "image", "steps": steps})
        (stage / manifest.MANIFEST).unlink()
        with manifest.sealed(folder / "sealed") as scratch:
            shutil.copytree(stage, scratch, dirs_exist_ok=True)
        shutil.rmtree(stage)
        (folder / "sealed").rename(stage)

    return resealed(source, target, change)
