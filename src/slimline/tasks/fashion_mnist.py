"""Fashion-MNIST (Xiao, Rasul & Vollgraf 2017, arXiv:1708.07747): grey images of clothes, 28×28, ten classes."""

from __future__ import annotations

import gzip
import zipfile
import zlib
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from slimline.errors import DataError
from slimline.task import Classification, Split, cut
from slimline.tasks.images import flip, shift

BUNDLED = Path("data/fashion-mnist")
IDX = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}


class FashionMnist(Classification):
    """The bundled 12,000 training images, or with ``source`` a folder that holds the four full idx.gz files.

    ``validation`` and ``calibration`` rows are cut from the training images, class-balanced, by ``seed``.
    """

    labels = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
    augment_draws = 3

    def __init__(
        self, source: str | None = None, validation: int = 1500, calibration: int = 500, seed: int = 0
    ) -> None:
        self.source = Path(source) if source else None
        self.sizes = {"train": 0, "validation": validation, "calibration": calibration}
        self.seed = seed

    @cached_property
    def _splits(self) -> dict[str, Split]:
        pixels, targets = self._read("train")
        images = self.inputs_of(list(pixels))["image"]
        parts = cut(targets, self.sizes, self.seed)
        splits = {name: Split({"image": images[rows]}, targets[rows]) for name, rows in parts.items()}
        pixels, targets = self._read("test")
        return {**splits, "test": Split(self.inputs_of(list(pixels)), targets)}

    def splits(self) -> dict[str, Split]:
        return self._splits

    def _read(self, part: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        if self.source is None:
            images, labels = read_arrays(BUNDLED / f"{part}.npz")
        else:
            images, labels = (read_idx(self.source / name) for name in IDX[part])
        if len(images) != len(labels):
            raise DataError(f"{self.source or BUNDLED}: {part}: {len(images)} images but {len(labels)} labels")
        if images.shape[1:] != (28, 28):
            raise DataError(f"{self.source or BUNDLED}: {part}: images are {images.shape[1:]}, expected (28, 28)")
        return images, labels.astype(np.int64)

    def augment(self, inputs: dict[str, Tensor], draws: Tensor) -> dict[str, Tensor]:
        """Mirror half of the images and shift each by up to two pixels along both axes."""
        return {"image": shift(flip(inputs["image"], draws[:, 0]), draws[:, 1:], 2)}

    def signature(self) -> dict[str, Any]:
        return {
            "inputs": [{"name": "image", "dtype": "float32", "shape": ["batch", 1, 28, 28]}],
            "outputs": [{"name": "logits", "dtype": "float32", "shape": ["batch", 10]}],
            "labels": list(self.labels),
        }

    def preprocess(self) -> dict[str, Any]:
        return {
            "format": 1,
            "input": "image",
            "steps": [
                {"op": "decode_image", "mode": "L"},
                {"op": "resize", "size": [28, 28]},
                {"op": "normalize", "mean": [0.2860], "std": [0.3530]},
            ],
        }


def read_arrays(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Read ``images`` N×28×28 and ``labels`` N from a compressed .npz. Raises DataError when it is damaged."""
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            return file["images"], file["labels"]
    except FileNotFoundError as error:
        raise DataError(
            f"{path}: not found; params.yaml: task.args.source names a folder with the full idx.gz files"
        ) from error
    except (zipfile.BadZipFile, zlib.error, OSError, ValueError, KeyError, EOFError) as error:
        raise DataError(f"{path}: truncated or damaged ({error}); restore it with 'git checkout -- {path}'") from error


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read one gzipped idx file of unsigned bytes (the format of LeCun's MNIST page). Raises DataError when damaged."""
    try:
        raw = gzip.decompress(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(
            f"{path}: not found; params.yaml: task.args.source must hold {', '.join(sum(IDX.values(), ()))}"
        ) from error
    except (zlib.error, OSError, EOFError) as error:
        raise DataError(f"{path}: truncated or damaged ({error}); fetch it again") from error
    rank = raw[3] if len(raw) > 3 else 0
    if raw[:3] != b"\x00\x00\x08" or rank == 0 or len(raw) < 4 + 4 * rank:
        raise DataError(f"{path}: not an idx file of unsigned bytes")
    shape = tuple(int.from_bytes(raw[4 + 4 * axis : 8 + 4 * axis], "big") for axis in range(rank))
    body = np.frombuffer(raw, np.uint8, offset=4 + 4 * rank)
    if body.size != int(np.prod(shape)):
        raise DataError(f"{path}: truncated: {body.size} values, its header says {int(np.prod(shape))}")
    return body.reshape(shape)
