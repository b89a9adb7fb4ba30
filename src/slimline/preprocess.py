"""Raw input to model input as data: a list of steps that any process without torch can run.

``preprocess.json`` is ``{"format": 1, "input": NAME, "steps": [{"op": OP, …}]}``. Each op is a plug-in
``op(values, **arguments) -> values`` over a list of raw values or a batch array; the last one leaves the array that
the model's input NAME takes, or {input: array} for a model of several. Training and serving run the same steps, so
they can't drift apart. A step's ``file`` is one that it reads: it travels beside preprocess.json, and the step must
take no values too, for ``load``. ``columns``, where it is there, are the columns of the task's own table that a raw
value is made of: a file that is like it needs no word of which they are.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimline import manifest, plugins
from slimline.errors import ArtifactError, DataError

FORMAT = 1
FILE = "preprocess.json"
ASSETS = "assets"
SIXTEEN_BITS = {"PNG", "PPM"}  # formats whose pictures of mode I Pillow scales to 65535


def read(folder: Path) -> dict[str, Any]:
    """Return ``folder``/preprocess.json, each step's ``file`` as the path where it lies now.

    Raises ArtifactError for a file that would lie outside ``folder``.
    """
    document: dict[str, Any] = manifest.read_json(folder / FILE)
    for step in document.get("steps", []):
        if "file" in step:
            path = (folder / step["file"]).resolve()
            if not path.is_relative_to(folder.resolve()):
                raise ArtifactError(f"{folder / FILE}: {step['op']}: file {step['file']!r} lies outside its folder")
            step["file"] = str(path)
    return document


def write(document: Mapping[str, Any], folder: Path) -> None:
    """Write ``folder``/preprocess.json and copy the files that its steps read into ``folder``/assets."""
    steps = []
    for step in document.get("steps", []):
        if "file" in step:
            (folder / ASSETS).mkdir(exist_ok=True)
            shutil.copyfile(step["file"], folder / ASSETS / Path(step["file"]).name)
            step = {**step, "file": f"{ASSETS}/{Path(step['file']).name}"}  # noqa: PLW2901
        steps.append(step)
    manifest.write_json(folder / FILE, {**document, "steps": steps})


def run(document: dict[str, Any], raw: Sequence[Any], trust: Collection[str] | None = ()) -> dict[str, NDArray[Any]]:
    """Return {input name: batch array} for a sequence of raw values (encoded images, paths, arrays).

    Raises PluginError for an op that is not registered (or trusted; ``trust`` None trusts all), DataError for a value
    an op can't read, ArtifactError for a newer format.
    """
    manifest.check_format(document, Path(FILE), FORMAT)
    values: Any = list(raw)
    for step in document["steps"]:
        values = _op(step, trust)(values, **_arguments(step))
    found = values if isinstance(values, Mapping) else {document["input"]: values}
    return {name: np.asarray(array) for name, array in found.items()}


def takes_pairs(document: Mapping[str, Any]) -> bool:
    """Return whether a raw value is two texts."""
    steps = document.get("steps") or [{}]
    return bool(steps[0].get("pair"))


def load(document: dict[str, Any], trust: Collection[str] | None = ()) -> None:
    """Let the steps read their files now: no request has to wait for it, or is told what a server lacks.

    Raises DataError for a file that can't be read, or whose package is missing.
    """
    for step in document.get("steps", []):
        if "file" in step:
            _op(step, trust)([], **_arguments(step))


def _op(step: Mapping[str, Any], trust: Collection[str] | None) -> Any:
    return plugins.find("preprocess", step["op"], where=f"preprocess.json: {step['op']}", trust=trust)


def _arguments(step: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in step.items() if key != "op"}


def decode_image(
    values: Sequence[Any],
    *,
    mode: str = "RGB",
    size: Sequence[int] | None = None,
    background: int | None = None,
    upright: bool = False,
) -> list[NDArray[np.uint8]]:
    """Decode images (bytes, a path, or an array H×W[×C] of uint8) to uint8 arrays H×W×C in Pillow's ``mode``.

    ``size`` [height, width], when given, is what each image must have (use ``resize`` to make it so). What is
    transparent lies on grey of value ``background`` (None: its hidden colour shows). ``upright`` turns a photograph as
    its EXIF orientation says.
    """
    from PIL import Image

    images = []
    for index, value in enumerate(values):
        try:
            if isinstance(value, np.ndarray):
                picture = Image.fromarray(value.squeeze(-1) if value.ndim == 3 and value.shape[-1] == 1 else value)
            elif isinstance(value, bytes | bytearray):
                picture = Image.open(io.BytesIO(value))
            else:
                picture = Image.open(Path(value))
            array = np.asarray(_converted(picture, mode, background, upright=upright), dtype=np.uint8)
        except Exception as error:  # damaged bytes make Pillow's decoders raise SyntaxError, struct.error and more
            raise DataError(f"image {index}: can't be decoded: {error}") from error
        array = array[..., None] if array.ndim == 2 else array
        if size is not None and array.shape[:2] != tuple(size):
            raise DataError(f"image {index}: {array.shape[0]}×{array.shape[1]} pixels, expected {size[0]}×{size[1]}")
        images.append(array)
    return images


def _converted(picture: Any, mode: str, background: int | None, *, upright: bool) -> Any:
    """Return a picture in another mode, turned and without transparency where asked; 16-bit greys are scaled.

    So are floats from 0 to 1; floats and other integers from 0 to 255 stay. Raises DataError for others.
    """
    from PIL import Image, ImageOps

    kind = picture.format  # a copy has none
    if upright:
        picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I;16") or (picture.mode == "I" and kind in SIXTEEN_BITS):
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    elif picture.mode == "I":
        picture = _of_integers(picture)
    elif picture.mode == "F":
        picture = _of_floats(picture)
    elif picture.mode == "LAB":  # Pillow knows no way from it to grey
        picture = picture.convert("RGB")
    if background is not None and (picture.mode in {"RGBA", "LA", "PA"} or "transparency" in picture.info):
        whole = picture.convert("RGBA")
        ground = Image.new("RGBA", whole.size, (background, background, background, 255))
        picture = Image.alpha_composite(ground, whole)
    return picture.convert(mode)


def _of_integers(picture: Any) -> Any:
    """Return a picture of integers, whose file doesn't say how far they count, as one of bytes."""
    from PIL import Image

    pixels = np.asarray(picture)
    low, high = pixels.min(), pixels.max()
    if low < 0 or high > 255:
        raise DataError(f"integer pixels from {low} to {high}: save them as 8 bits, or unsigned 16")
    return Image.fromarray(pixels.astype(np.uint8))


def _of_floats(picture: Any) -> Any:
    """Return a picture of floats as one whose pixels are from 0 to 255."""
    from PIL import Image

    pixels = np.asarray(picture)
    low, high = pixels.min(), pixels.max()
    if not (low >= 0 and high <= 255):  # what is no number is neither
        raise DataError(f"float pixels from {low:g} to {high:g}: save them as 8 or 16 bits")
    return picture if high > 1 else Image.fromarray(np.rint(pixels * 255).astype(np.uint8))


def resize(values: Sequence[NDArray[np.uint8]], *, size: Sequence[int]) -> list[NDArray[np.uint8]]:
    """Resize uint8 images H×W×C to ``size`` [height, width] with Pillow's bilinear filter (antialiased)."""
    from PIL import Image

    height, width = size
    resized = []
    for value in values:
        if value.shape[:2] == (height, width):
            resized.append(value)
            continue
        picture = Image.fromarray(value[..., 0] if value.shape[-1] == 1 else value)
        array = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))
        resized.append(array[..., None] if array.ndim == 2 else array)
    return resized


def normalize(
    values: Sequence[NDArray[np.uint8]], *, mean: Sequence[float], std: Sequence[float]
) -> NDArray[np.float32]:
    """Turn uint8 images H×W×C into one float32 batch N×C×H×W: (x/255 − mean) / std, per channel."""
    batch = np.stack(list(values)).astype(np.float32) / np.float32(255)
    centred = (batch - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)
    return np.ascontiguousarray(centred.transpose(0, 3, 1, 2), dtype=np.float32)
