"""Every kind of picture is read as one sees it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from slimline import preprocess
from slimline.tasks.labelled_images import images
from tests.pictures import LABELS
from tests.tasks.labelled_images.conftest import make


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


GREY = Image.fromarray(np.full((8, 8), 100, np.uint8))
DEEP = Image.fromarray(np.full((8, 8), 100 * 256, np.uint16))
WIDE = Image.fromarray(np.full((8, 8), 100, np.int32))
CLEAR = Image.fromarray(np.concatenate([np.full((8, 8, 3), 7, np.uint8), np.zeros((8, 8, 1), np.uint8)], 2))
FLOATS = Image.fromarray(np.full((8, 8), 100, np.float32))
SHARES = Image.fromarray(np.full((8, 8), 100 / 255, np.float32))
LAB = ImageCms.applyTransform(
    GREY.convert("RGB"),
    ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"),
)
PALETTE = Image.fromarray(np.full((8, 8, 3), 100, np.uint8)).quantize(4)


@pytest.mark.parametrize(
    ("content", "value"),
    [
        pytest.param(encoded(GREY, "PNG"), 100, id="grey"),
        pytest.param(encoded(DEEP, "PNG"), 100, id="16-bit grey"),
        pytest.param(encoded(DEEP, "TIFF"), 100, id="16-bit tiff"),
        pytest.param(encoded(DEEP, "PPM"), 100, id="16-bit pgm"),
        pytest.param(b"P5 8 8 4095\n" + (100 * 16).to_bytes(2) * 64, 100, id="12-bit pgm"),
        pytest.param(encoded(WIDE, "TIFF"), 100, id="8 bits in 32"),
        pytest.param(encoded(CLEAR, "PNG"), 255, id="transparent"),
        pytest.param(encoded(PALETTE, "GIF"), 100, id="palette"),
        pytest.param(encoded(GREY.convert("RGB"), "WEBP", lossless=True), 100, id="webp"),
        pytest.param(encoded(FLOATS, "TIFF"), 100, id="floats"),
        pytest.param(encoded(SHARES, "TIFF"), 100, id="floats up to 1"),
        pytest.param(encoded(LAB, "TIFF"), 100, id="lab"),
        pytest.param(encoded(GREY.convert("1"), "TIFF"), None, id="one bit"),
        pytest.param(encoded(GREY.convert("CMYK"), "JPEG"), None, id="cmyk"),
    ],
)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_every_kind_of_picture_is_read(content: bytes, value: int | None, mode: str) -> None:
    steps = images(data="x", labels=LABELS, size=[8, 8], mode=mode)._to_pixels
    (array,) = preprocess.run({"format": 1, "input": "image", "steps": steps}, [content], trust=None).values()
    assert array.shape == (1, 8, 8, len(mode))
    if value is not None:
        assert np.abs(array.astype(int) - value).max() <= 1


@pytest.mark.parametrize(("most", "told"), [(255, True), (4095, True), (65535, False)])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_images_of_fewer_bits_in_16_are_told_by_how_dark_they_are(
    folder: Path, most: int, told: bool, suffix: str
) -> None:
    task = make(folder)
    task.splits()
    assert task.notes == []
    for at in range(20):
        pixels = np.random.default_rng(at).integers(0, most, (8, 8), np.uint16, endpoint=True)
        (folder / f"red/{at:03}.png").unlink()
        Image.fromarray(pixels).save(folder / f"red/{at:03}.{suffix}")
    task = make(folder)
    task.splits()
    said = "20 of 120 images are black or nearly so, all pixels below 16 of 255: 16-bit files count to 65,535"
    assert [note.startswith(said) for note in task.notes] == [True] * told


def test_a_photograph_is_turned_upright() -> None:
    pixels: NDArray[np.uint8] = np.zeros((4, 8, 3), np.uint8)
    pixels[:, :4] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90° clockwise
    content = encoded(Image.fromarray(pixels), "PNG", exif=exif)
    (found,) = preprocess.decode_image([content], upright=True)
    assert found.shape == (8, 4, 3)
    assert found[0, 0, 0] == 255
    assert found[-1, -1, 0] == 0
