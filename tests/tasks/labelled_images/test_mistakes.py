"""Wrong images are named, all of them in one line."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from slimline.errors import DataError
from tests.pictures import LABELS, picture, write_manifest, write_zip
from tests.tasks.labelled_images.conftest import make

WRONG: dict[str, tuple[Callable[[Path], Path], dict[str, Any], str]] = {
    "damaged": (lambda f: (f / "red/003.png").write_bytes(b"no image") and f, {}, r"red/003.png: can't be decoded"),
    "no folder": (lambda f: f / "missing", {}, r"missing: no such file or folder"),
    "loose": (lambda f: picture("red", 0).save(f / "a.png") or f, {}, r"a.png lies in no class folder"),
    "unknown class": (lambda f: f, {"labels": ["red", "green"]}, r"blue/000.png, .* and 37 more: unknown label 'blue'"),
    "empty class": (lambda f: f, {"labels": [*LABELS, "black"]}, r"label 'black' has no training row"),
    "floats": (
        lambda f: Image.fromarray(np.array([[-3.2, 812]], np.float32)).save(f / "red/x.tif") or f, {},
        r"red/x.tif: can't be decoded: float pixels from -3.2 to 812: save them as 8 or 16 bits"),
    "no numbers": (
        lambda f: Image.fromarray(np.array([[np.nan, 1]], np.float32)).save(f / "red/x.tif") or f, {},
        r"red/x.tif: can't be decoded: float pixels from nan to nan: save them as 8 or 16 bits"),
    "integers of 32 bits": (
        lambda f: Image.fromarray(np.array([[7, 25600]], np.int32)).save(f / "red/x.tif") or f, {},
        r"red/x.tif: can't be decoded: integer pixels from 7 to 25600: save them as 8 bits, or unsigned 16"),
    "negative": (
        lambda f: Image.fromarray(np.array([[-7, 25]], np.int32)).save(f / "red/x.tif") or f, {},
        r"red/x.tif: can't be decoded: integer pixels from -7 to 25: save them as 8 bits, or unsigned 16"),
    "no archive": (lambda f: (f / "a.zip").write_bytes(b"PK") and f / "a.zip", {}, r"a.zip: not an archive"),
    "not there": (
        lambda f: write_manifest(f, [["red/999.png", "red"]], ["path", "label"]), {}, r"row 1: 'red/999.png': no such"),
    "no column": (lambda f: write_manifest(f, [["a", "b"]], ["file", "label"]), {}, r"list.csv: no column 'path'"),
    "no image": (lambda f: (f / "none").mkdir() or f / "none", {}, r"none: no image in it"),
}  # fmt: skip


def test_all_wrong_images_are_told_in_one_line(folder: Path) -> None:
    for name in ("blue/003", "green/000", "red/001", "red/039"):
        (folder / f"{name}.png").write_bytes(b"no image")
    message = r"pictures: blue/003\.png, green/000\.png, red/001\.png and 1 more: can't be decoded: .*; replace it, or"
    with pytest.raises(DataError, match=message) as caught:
        make(folder).splits()
    assert "\n" not in str(caught.value)


def test_wrong_images_are_told_where_reading_breaks_behind_them(folder: Path, tmp_path: Path) -> None:
    packed = write_zip(folder, tmp_path / "all.zip")
    with zipfile.ZipFile(packed) as archive:
        last = archive.infolist()[-1]
    content = bytearray(packed.read_bytes())
    content[last.header_offset + 200] ^= 255
    packed.write_bytes(content)
    message = r"blue/000\.png, .* and 37 more: unknown label 'blue'\..*; then .*all\.zip: pictures/red/039\.png: can"
    with pytest.raises(DataError, match=message) as caught:
        make(packed, labels=["red", "green"]).splits()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("case", WRONG)
def test_wrong_data_is_named(folder: Path, case: str) -> None:
    write, args, message = WRONG[case]
    with pytest.raises(DataError, match=message) as caught:
        make(write(folder), **args).splits()
    assert "\n" not in str(caught.value)
