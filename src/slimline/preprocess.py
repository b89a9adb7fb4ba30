"""Raw input to model input as data: a list of steps that any process without torch can run.

``preprocess.json`` is ``{"format": 1, "input": NAME, "steps": [{"op": OP, …}]}``. Each op is a plug-in
``op(values, **arguments) -> values`` over a list of raw values or a batch array; the last one leaves the array that
the model's input NAME takes. Training and serving run the same steps, so they can't drift apart.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimline import manifest, plugins
from slimline.errors import DataError

FORMAT = 1


def run(document: dict[str, Any], raw: Sequence[Any], trust: Collection[str] | None = ()) -> dict[str, NDArray[Any]]:
    """Return {input name: batch array} for a sequence of raw values (encoded images, paths, arrays).

    Raises PluginError for an op that is not registered (or trusted; ``trust`` None trusts all), DataError for a value
    an op can't read, ArtifactError for a newer format.
    """
    manifest.check_format(document, Path("preprocess.json"), FORMAT)
    values: Any = list(raw)
    for step in document["steps"]:
        arguments = {key: value for key, value in step.items() if key != "op"}
        op = plugins.find("preprocess", step["op"], where=f"preprocess.json: {step['op']}", trust=trust)
        values = op(values, **arguments)
    return {document["input"]: np.asarray(values)}


def decode_image(
    values: Sequence[Any], *, mode: str = "RGB", size: Sequence[int] | None = None
) -> list[NDArray[np.uint8]]:
    """Decode images (bytes, a path, or an array H×W[×C] of uint8) to uint8 arrays H×W×C in Pillow's ``mode``.

    ``size`` [height, width], when given, is what each image must have (use ``resize`` to make it so).
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
            array = np.asarray(picture.convert(mode), dtype=np.uint8)
        except Exception as error:  # damaged bytes make Pillow's decoders raise SyntaxError, struct.error and more
            raise DataError(f"image {index}: can't be decoded: {error}") from error
        array = array[..., None] if array.ndim == 2 else array
        if size is not None and array.shape[:2] != tuple(size):
            raise DataError(f"image {index}: {array.shape[0]}×{array.shape[1]} pixels, expected {size[0]}×{size[1]}")
        images.append(array)
    return images


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
