"""Pictures of three colours in class folders, archives and tables, made on the spot."""

from __future__ import annotations

import csv
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"green": (30, 180, 40), "red": (190, 40, 30), "blue": (20, 60, 200)}
LABELS = sorted(COLOURS)


def picture(label: str, index: int) -> Image.Image:
    """Return a picture of a label's colour with noise of its own, 20×24."""
    noise = np.random.default_rng([LABELS.index(label), index]).integers(-20, 20, (20, 24, 3))
    return Image.fromarray((np.array(COLOURS[label]) + noise).clip(0, 255).astype(np.uint8))


def write_folders(root: Path, each: int = 40, parts: tuple[str, ...] = ("",)) -> Path:
    for part in parts:
        for label in LABELS:
            folder = root / part / label
            folder.mkdir(parents=True)
            for index in range(each):
                picture(label, index + 1000 * parts.index(part)).save(folder / f"{index:03}.png")
    return root


def write_zip(folder: Path, target: Path) -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(folder.rglob("*.png")):
            archive.write(path, f"pictures/{path.relative_to(folder)}")
    return target


def write_tar(folder: Path, target: Path) -> Path:
    with tarfile.open(target, "w:gz") as archive:
        archive.add(folder, "pictures")
    return target


def write_manifest(root: Path, rows: list[list[str]], names: list[str]) -> Path:
    with (root / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows([names, *rows])
    return root / "list.csv"
