from __future__ import annotations

import contextlib
import io
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from slimline import preprocess
from slimline.errors import DataError, PluginError
from slimline.task import Split
from slimline.tasks.digits import Digits


def encoded(pixels: NDArray[np.uint8], kind: str) -> bytes:
    """Encode grey or coloured pixels in an image format."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format=kind)
    return file.getvalue()


def png(pixels: NDArray[np.uint8]) -> bytes:
    return encoded(pixels, "PNG")


def pixels_of(task: Digits, image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Undo ``normalize``: the pixels that a training image was made from."""
    step = task.preprocess()["steps"][-1]
    pixels: NDArray[np.uint8] = np.rint((image[0] * step["std"][0] + step["mean"][0]) * 255).astype(np.uint8)
    return pixels


def test_png_bytes_give_the_training_array_bit_for_bit(task: Digits, splits: dict[str, Split]) -> None:
    images = splits["validation"].inputs["image"][:30]
    encoded = [png(pixels_of(task, image)) for image in images]
    found = preprocess.run(task.preprocess(), encoded)["image"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, images)


def test_bytes_paths_and_arrays_are_the_same_image(task: Digits, tmp_path: Path) -> None:
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8) * 3
    (tmp_path / "x.png").write_bytes(png(pixels))
    raw: list[Any] = [
        png(pixels),
        bytearray(png(pixels)),
        tmp_path / "x.png",
        str(tmp_path / "x.png"),
        pixels,
        pixels[..., None],
    ]
    found = preprocess.run(task.preprocess(), raw)["image"]
    assert (found == found[0]).all()


@pytest.mark.parametrize(
    "raw",
    [b"", b"no image", png(np.zeros((8, 8), np.uint8))[:40], "no/such/file.png", 7, np.zeros((2, 2, 2, 2))],
    ids=["empty", "text", "truncated", "no file", "number", "four axes"],
)
def test_what_is_no_image_is_named_by_its_place(task: Digits, raw: Any) -> None:
    good = png(np.zeros((8, 8), np.uint8))
    with pytest.raises(DataError, match="image 1: can't be decoded"):
        preprocess.run(task.preprocess(), [good, raw])


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
@settings(max_examples=40)
@given(at=st.integers(0, 300), value=st.integers(0, 255), length=st.integers(4, 700))
def test_damaged_bytes_never_raise_anything_else(kind: str, at: int, value: int, length: int) -> None:
    damaged = bytearray(encoded(np.arange(256, dtype=np.uint8).reshape(16, 16), kind))
    damaged[min(at, len(damaged) - 1)] = value
    with contextlib.suppress(DataError):
        (image,) = preprocess.decode_image([bytes(damaged[:length])], mode="L")
        assert image.dtype == np.uint8


def test_an_image_too_large_to_be_true_is_refused() -> None:
    """A PNG of a hundred bytes can claim a billion pixels; unpacking them would take the memory."""
    raw = bytearray(png(np.zeros((8, 8), np.uint8)))
    raw[16:24] = (60_000).to_bytes(4, "big") * 2
    raw[29:33] = zlib.crc32(raw[12:29]).to_bytes(4, "big")
    with pytest.raises(DataError, match="image 0: can't be decoded"):
        preprocess.decode_image([bytes(raw)])


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3), ("RGBA", 4)])
def test_decode_image_gives_the_mode_that_is_asked_for(mode: str, channels: int) -> None:
    grey = np.full((4, 6), 128, np.uint8)
    (image,) = preprocess.decode_image([png(grey)], mode=mode)
    assert image.shape == (4, 6, channels)
    assert (image[..., 0] == 128).all()


def test_decode_image_can_ask_for_a_size() -> None:
    with pytest.raises(DataError, match="image 0: 4×6 pixels, expected 8×8"):
        preprocess.decode_image([png(np.zeros((4, 6), np.uint8))], size=[8, 8])


@pytest.mark.parametrize("shape", [(4, 6, 1), (20, 9, 1), (20, 9, 3)], ids=str)
def test_resize_keeps_channels_and_constant_images(shape: tuple[int, ...]) -> None:
    (image,) = preprocess.resize([np.full(shape, 77, np.uint8)], size=[8, 5])
    assert image.shape == (8, 5, shape[2])
    assert (image == 77).all()


def test_resize_leaves_images_of_the_size_alone() -> None:
    image = np.arange(64, dtype=np.uint8).reshape(8, 8, 1)
    assert preprocess.resize([image], size=[8, 8])[0] is image


@given(st.floats(0.1, 0.9), st.floats(0.1, 0.9), st.integers(0, 255))
def test_normalize_is_its_formula(mean: float, std: float, pixel: int) -> None:
    found = preprocess.normalize([np.full((2, 3, 1), pixel, np.uint8)], mean=[mean], std=[std])
    assert found.shape == (1, 1, 2, 3)
    np.testing.assert_allclose(found, (pixel / 255 - mean) / std, rtol=1e-5, atol=1e-6)


def test_normalize_works_per_channel() -> None:
    found = preprocess.normalize([np.full((2, 2, 3), 255, np.uint8)], mean=[0, 0.5, 1], std=[1, 0.5, 2])
    assert found[0, :, 0, 0].tolist() == [1, 1, 0]


def test_an_op_that_is_not_registered_does_not_run() -> None:
    document = {"format": 1, "input": "x", "steps": [{"op": "os:system"}]}
    with pytest.raises(
        PluginError, match=r"preprocess.json: os:system: 'os:system' would run code that is not registered"
    ):
        preprocess.run(document, ["true"])


def test_a_trusted_op_runs() -> None:
    document = {"format": 1, "input": "x", "steps": [{"op": "numpy:stack"}]}
    assert preprocess.run(document, [np.ones(2)], trust=["numpy:stack"])["x"].shape == (1, 2)


def test_preprocessing_needs_no_torch() -> None:
    code = (
        "import sys, numpy as np; from slimline import preprocess\n"
        "steps = [{'op': 'decode_image', 'mode': 'L'}, {'op': 'normalize', 'mean': [0], 'std': [1]}]\n"
        "preprocess.run({'format': 1, 'input': 'x', 'steps': steps}, [np.zeros((8, 8), np.uint8)])\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
