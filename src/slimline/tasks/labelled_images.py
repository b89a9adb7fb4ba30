"""Images of one's own: class folders, a manifest, a tar or zip, and one label, several, or a number an image."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from slimline import preprocess
from slimline.errors import DataError, ParamsError
from slimline.own_data import image_sources, image_stores
from slimline.own_data.image_sources import Item
from slimline.own_data.image_stores import Store
from slimline.own_data.labelled_rows import Read, WrongRowsError
from slimline.own_data.rows import Batch, ManyLabelsRows, NumberRows, OneLabelRows, OwnRows, chosen
from slimline.tasks.images import flip, shift

BATCH = 256
DARK = 16  # of 256: where 12 bits end in 16
FEW_DARK = 0.05  # of the images: above it some were hardly meant so
NAMELESS = re.compile(r" <_io\.BytesIO[^>]*>")  # what Pillow calls an image that came without a file


class Images(OwnRows):
    """``data`` is a folder of class folders (SPLIT/CLASS/… names splits too), a tar or zip of such, or a manifest.

    A manifest is a table with columns ``path`` and ``label``, and any that ``split`` and ``group`` name; its paths are
    relative to it, or lie in ``archive``. Images are brought to ``size`` [height, width], ``mode`` RGB or L, and
    (x/255 − ``mean``) / ``std``; what is transparent lies on white. Training sees each shifted by up to ``shift``
    pixels, half of them mirrored where ``mirror`` says so.
    """

    augment_draws = 3

    def __init__(
        self,
        data: str,
        size: int | Sequence[int] = (64, 64),
        mode: str = "RGB",
        mean: float | Sequence[float] = (0.5,),
        std: float | Sequence[float] = (0.5,),
        label: str = "label",
        archive: str | None = None,
        split: str | None = None,
        group: str | None = None,
        mirror: bool = True,
        shift: int = 4,
        **rest: Any,
    ) -> None:
        super().__init__(**rest)
        if mode not in {"RGB", "L"}:
            raise ParamsError(f"task.args.mode: {mode!r} is neither RGB nor L")
        self.channels = 3 if mode == "RGB" else 1
        means, stds, sides = (_several(each) for each in (mean, std, size))
        if len(sides) not in {1, 2}:
            raise ParamsError(f"task.args.size: one number, or height and width, found {len(sides)}")
        for name, given in (("mean", means), ("std", stds)):
            if len(given) not in {1, self.channels}:
                raise ParamsError(f"task.args.{name}: one number or {self.channels}, found {len(given)}")
        self.data, self.archive = Path(data), Path(archive) if archive else None
        self.size, self.mode = [int(each) for each in sides] * (2 // len(sides)), mode
        self.mean, self.std = (given * (self.channels // len(given)) for given in (means, stds))
        self.label, self.split, self.group = label, split, group
        self.mirror, self.shift = mirror, shift

    def preprocess(self) -> dict[str, Any]:
        return {
            "format": 1,
            "input": "image",
            "steps": [*self._to_pixels, {"op": "normalize", "mean": self.mean, "std": self.std}],
        }

    @property
    def _to_pixels(self) -> list[dict[str, Any]]:
        return [
            {"op": "decode_image", "mode": self.mode, "background": 255, "upright": True},
            {"op": "resize", "size": self.size},
        ]

    def signature(self) -> dict[str, Any]:
        return {
            "inputs": [{"name": "image", "dtype": "float32", "shape": ["batch", self.channels, *self.size]}],
            "outputs": [{"name": self.output, "dtype": "float32", "shape": ["batch", self.width]}],
            **self.said,
        }

    def augment(self, inputs: dict[str, Tensor], draws: Tensor) -> dict[str, Tensor]:
        images = flip(inputs["image"], draws[:, 0]) if self.mirror else inputs["image"]
        return {"image": shift(images, draws[:, 1:], self.shift) if self.shift else images}

    def stored(self) -> dict[str, tuple[type, tuple[int, ...]]]:
        return {"image": (np.uint8, (*self.size, self.channels))}

    def as_input(self, name: str, kept: NDArray[Any]) -> Normalized:
        del name
        return Normalized(kept, self.mean, self.std)

    def files(self) -> list[Path]:
        packed = self.archive or self.data
        if packed.is_file() and not image_sources.is_table(packed):  # to list one means to unpack it
            return [*([self.data] if self.archive else []), packed]
        files, items = self._items
        return [*([self.data] if self.data.is_file() else []), *(files.path / item.name for item in items)]

    def settings(self) -> list[Any]:
        return [self.size, self.mode, self.label, self.split, self.group]

    def remarks(self, kept: Mapping[str, NDArray[Any]]) -> list[str]:
        lines = [] if image_sources.is_table(self.data) else image_sources.left_out(self._items[0])
        images = kept["image"]
        starts = range(0, len(images), BATCH)
        dark = sum(int((images[start : start + BATCH] < DARK).all((1, 2, 3)).sum()) for start in starts)
        if dark > FEW_DARK * len(images):
            lines.append(
                f"{dark:,} of {len(images):,} images are black or nearly so, all pixels below {DARK} of 255: 16-bit "
                "files count to 65,535, so multiply pixels of 12 bits by 16, and save those of 8 bits as such"
            )
        return lines

    @cached_property
    def _items(self) -> tuple[Store, list[Item]]:
        if image_sources.is_table(self.data):
            listed = image_sources.by_manifest(self.data, self.label, self.split, self.group, numeric=self.numeric)
            files = image_stores.store(self.archive or self.data.parent)
            image_sources.check_listed(self.data, files, listed)
        else:
            files = image_stores.store(self.data)
            listed = image_sources.by_folder(files)
        return files, image_sources.in_order(files, listed)

    def read(self, read: Read) -> Iterator[Batch]:
        files, items = self._items
        read.files.append(self.data)
        read.starts.append(0)
        for start in range(0, len(items), BATCH):
            batch = items[start : start + BATCH]
            read.parts += [item.part for item in batch]
            read.groups += [item.group for item in batch] if self.group else []
            read.names |= {start + at: item.name for at, item in enumerate(batch)}
            contents: list[bytes] = []
            try:
                contents.extend(image_sources.pictures(files, batch))
            finally:
                if contents:  # those before one that can't be read
                    yield contents, [item.label for item in batch[: len(contents)]]

    def arrays(self, values: Sequence[Any]) -> dict[str, NDArray[Any]]:
        document = {"format": 1, "input": "image", "steps": self._to_pixels}
        try:
            return preprocess.run(document, values, trust=None)
        except DataError:
            wrong = {}
            for at, value in enumerate(values):
                try:
                    preprocess.run(document, [value], trust=None)
                except DataError as error:
                    told = NAMELESS.sub("", str(error)).removeprefix("image 0: ")
                    wrong[at] = f"{told}; replace it, or take it out"
            if wrong:
                raise WrongRowsError(wrong) from None
            raise


def _several(given: float | Sequence[float]) -> list[Any]:
    return [given] if isinstance(given, int | float) else list(given)


class Normalized:
    """Images kept as bytes, N×H×W×C, that index like the float32 array N×C×H×W which a model takes."""

    dtype = np.dtype(np.float32)
    ndim = 4

    def __init__(self, kept: NDArray[np.uint8], mean: Sequence[float], std: Sequence[float]) -> None:
        self._kept, self._mean, self._std = kept, mean, std
        count, height, width, channels = kept.shape
        self.shape = (count, channels, height, width)

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, rows: Any) -> NDArray[np.float32]:
        if isinstance(rows, int | np.integer):
            return np.asarray(self[[int(rows)]][0])
        found = self._kept[rows]
        if not len(found):
            return np.zeros((0, *self.shape[1:]), np.float32)
        return preprocess.normalize(list(found), mean=self._mean, std=self._std)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        del copy
        return np.asarray(self[slice(None)], dtype)


class OneLabelImages(Images, OneLabelRows):
    """Each image has one of ``labels``, in the order of the model's outputs."""


class ManyLabelsImages(Images, ManyLabelsRows):
    """Each image has any of ``labels``."""


class NumberImages(Images, NumberRows):
    """Each image has a number."""


def images(answer: str = "one", **args: Any) -> Images:
    """Return the task of images that have ``one`` label, ``many``, or a ``number``."""
    task: Images = chosen({"one": OneLabelImages, "many": ManyLabelsImages, "number": NumberImages}, answer, args)
    return task
